package registry

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// maxPage is how many names one answer has at most.
const maxPage = 1000

// page cuts a sorted list as the query asks: after last, at most n. It says whether
// there is more.
func page(all []string, q url.Values) (part []string, more bool, err error) {
	n := maxPage
	if s := q.Get("n"); s != "" {
		if n, err = strconv.Atoi(s); err != nil || n < 0 {
			return nil, false, &problem{http.StatusBadRequest, "UNSUPPORTED", "n is not a number"}
		}
		n = min(n, maxPage)
	}
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	if len(all) <= n {
		return all, false, nil
	}
	return all[:n], n > 0, nil
}

// paged answers with a part of a list, and a link to the next one.
func paged(w http.ResponseWriter, r *http.Request, all []string, document func([]string) any) error {
	part, more, err := page(all, r.URL.Query())
	if err != nil {
		return err
	}
	if more {
		q := url.Values{"n": {strconv.Itoa(len(part))}, "last": {part[len(part)-1]}}
		w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
	}
	if part == nil {
		part = []string{}
	}
	return writeJSON(w, "application/json", document(part))
}

func (s *Server) tagList(w http.ResponseWriter, r *http.Request, v view, _ string) error {
	if !v.exists() {
		return &problem{http.StatusNotFound, "NAME_UNKNOWN", "there is no such repository"}
	}
	tags, err := v.tags()
	if err != nil {
		return err
	}
	return paged(w, r, tags, func(part []string) any {
		return map[string]any{"name": v.pushed.name, "tags": part}
	})
}

// list answers /v2/_catalog, which is not in the specification; clients have it to
// look around.
func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	names, err := repositories(s.objects)
	if err != nil {
		return err
	}
	artifacts, err := s.catalog.Artifacts(r.Context())
	if err != nil {
		return err
	}
	for name := range artifacts {
		names = append(names, name)
	}
	slices.Sort(names)
	return paged(w, r, slices.Compact(names), func(part []string) any {
		return map[string]any{"repositories": part}
	})
}
