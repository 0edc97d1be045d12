// Command guest is the program that the suite deploys. Its first argument says how
// it behaves; the version is a line of source, so that a change of one line is a new
// release.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const version = "v1"

func main() {
	behaviours := map[string]func(){
		"serves": serve, "exits": exit, "sick": sick, "stubborn": stubborn, "leaks": leak, "fails": fail, "eats": eat, "child": child, "hangs": hang, "blank": func() {},
	}
	act := behaviours[os.Args[1]]
	if act == nil {
		fmt.Fprintln(os.Stderr, "unknown behaviour", os.Args[1])
		os.Exit(64)
	}
	act()
}

func mark() string { return os.Getenv("MARK") }

// serve answers until SIGTERM, then finishes what it has accepted.
func serve() {
	if ms, err := strconv.Atoi(os.Getenv("START_MS")); err == nil {
		<-time.After(time.Duration(ms) * time.Millisecond) // it has much to load
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/slow", slow)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/write", write)
	mux.HandleFunc("/execute", execute)
	mux.HandleFunc("/call", call)
	mux.HandleFunc("/", spoilt(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "version %s mark %s instance %s\n", version, mark(), os.Getenv("ASHLAR_INSTANCE"))
	}))
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: stamped(mux), ReadHeaderTimeout: time.Minute}
	terms, ended := make(chan os.Signal, 1), make(chan error, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		<-terms
		fmt.Println("asked to stop")
		ended <- server.Shutdown(context.Background())
	}()
	fmt.Println("serving", version, mark())
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Println(err)
		os.Exit(1)
	}
	<-ended
}

// stamped says in each answer who gave it.
func stamped(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Version", version)
		w.Header().Set("Mark", mark())
		h.ServeHTTP(w, r)
	})
}

// spoilt fails ERROR_PERCENT of the requests, evenly, and answers each after DELAY_MS.
// The instance stays healthy.
func spoilt(h http.HandlerFunc) http.HandlerFunc {
	percent, _ := strconv.ParseInt(os.Getenv("ERROR_PERCENT"), 10, 64) // without: none
	delay, _ := strconv.Atoi(os.Getenv("DELAY_MS"))                    // likewise
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if delay > 0 {
			<-time.After(time.Duration(delay) * time.Millisecond)
		}
		if n := count.Add(1); n*percent/100 > (n-1)*percent/100 {
			http.Error(w, "spoilt", http.StatusInternalServerError)
			return
		}
		h(w, r)
	}
}

// slow streams n numbered lines, one every so many milliseconds.
func slow(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	every, err2 := strconv.Atoi(r.FormValue("every"))
	if err != nil || err2 != nil {
		http.Error(w, "n and every are numbers", http.StatusBadRequest)
		return
	}
	out := http.NewResponseController(w)
	for i := range n {
		fmt.Fprintf(w, "line %d of %s\n", i, version)
		if out.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Duration(every) * time.Millisecond):
		}
	}
}

// echo takes the connection over and answers each line with the version and the line.
func echo(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = rw.Flush()
	for lines := bufio.NewScanner(rw); lines.Scan(); {
		fmt.Fprintf(rw, "%s %s\n", version, lines.Text())
		if rw.Flush() != nil {
			return
		}
	}
}

// call asks whom a variable names, and says what that answers.
func call(w http.ResponseWriter, r *http.Request) {
	to := os.Getenv(r.FormValue("variable"))
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + to + "/")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	fmt.Fprint(w, to, " ")
	_, _ = io.Copy(w, resp.Body)
}

// write says what comes of writing to a path.
func write(w http.ResponseWriter, r *http.Request) {
	err := os.WriteFile(r.FormValue("path"), []byte("x"), 0o600)
	fmt.Fprint(w, err)
}

// execute says what comes of running a copy of this program that lies in a directory.
func execute(w http.ResponseWriter, r *http.Request) {
	copied := filepath.Join(r.FormValue("dir"), "copy")
	fmt.Fprint(w, func() error {
		in, err := os.Open("/proc/self/exe")
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(copied, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
		return exec.Command(copied, "blank").Run()
	}())
}

func exit() {
	fmt.Println("starting")
	fmt.Fprintln(os.Stderr, "cannot open the database")
	os.Exit(3)
}

// fail ends after a while, without having been healthy.
func fail() {
	<-time.After(300 * time.Millisecond)
	exit()
}

// hang does nothing, for ever, and does not end when it is asked to.
func hang() {
	fmt.Println("waiting for a lock")
	signal.Ignore(syscall.SIGTERM)
	for {
		<-time.After(time.Hour)
	}
}

// sick runs and never becomes healthy.
func sick() {
	fmt.Println("waiting for the database")
	err := http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database yet", http.StatusServiceUnavailable)
	}))
	fmt.Println(err)
	os.Exit(1)
}

// stubborn is sick and does not end when it is asked to.
func stubborn() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	sick()
}

// leak is sick and leaves processes in sessions of their own, which hold its output.
func leak() {
	for range 3 {
		cmd := exec.Command("/proc/self/exe", "child", "fork")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	}
	sick()
}

func child() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	if len(os.Args) > 2 {
		cmd := exec.Command("/proc/self/exe", "child")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	fmt.Println("left behind")
	select {}
}

// eat takes memory until it is not given any more.
func eat() {
	fmt.Println("hungry")
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		all = append(all, b)
	}
}
