package gc

import (
	"context"
	"errors"
)

// Removed counts what a sweep took away.
type Removed struct {
	Objects int
	Bytes   int64
	Refs    int
}

// Sweep removes what the plan says: references first, so that a sweep which is
// cut short leaves objects without references and never the other way round. It
// goes on after an error and gives what was removed in any case.
func Sweep(ctx context.Context, o Objects, p Plan) (Removed, error) {
	var done Removed
	var errs []error
	for _, r := range p.Refs {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		if err := o.RemoveRef(r.Kind, r.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		done.Refs++
	}
	for _, x := range p.Remove {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		if err := o.Remove(x.Digest); err != nil {
			errs = append(errs, err)
			continue
		}
		done.Objects++
		done.Bytes += x.Size
	}
	return done, errors.Join(errs...)
}
