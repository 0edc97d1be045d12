// Command guest is the program that the integration tests run in instances. Its
// first argument says how it behaves.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	behaviours := map[string]func(){
		"serves": serve, "plain": wait, "sick": wait, "exits": exit, "stubborn": stubborn,
		"leaks": leak, "fills": fill, "floods": flood, "eats": eat, "lines": lines, "looks": look, "child": child,
		"flaps": flap, "dies": die, "keeps": keep,
		"probes": probe, "hangs": child, "tried": tried,
	}
	act := behaviours[os.Args[1]]
	if act == nil {
		fmt.Fprintln(os.Stderr, "unknown behaviour", os.Args[1])
		os.Exit(64)
	}
	act()
}

func handle() {
	fmt.Println("started", time.Now().UnixNano())
	go func() {
		err := http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/exit" {
				os.Exit(7)
			}
			fmt.Fprintln(w, "hello from", os.Getenv("ASHLAR_INSTANCE"))
		}))
		fmt.Println(err)
		os.Exit(1)
	}()
}

var terms = make(chan os.Signal, 1)

func init() { signal.Notify(terms, syscall.SIGTERM, syscall.SIGQUIT) }

func wait() {
	fmt.Println("waiting")
	fmt.Println("ended by", <-terms)
}

func serve() { handle(); wait() }

func exit() { fmt.Println("farewell"); os.Exit(3) }

func die() { _ = unix.Kill(os.Getpid(), unix.SIGSEGV); os.Exit(9) }

func stubborn() {
	signal.Ignore(syscall.SIGTERM)
	handle()
	select {}
}

// flap is ready, then not, then again, as the file in its tmpfs says.
func flap() {
	err := http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sick":
			_ = os.WriteFile("/tmp/sick", nil, 0o600)
		case "/well":
			_ = os.Remove("/tmp/sick")
		default:
			if _, err := os.Stat("/tmp/sick"); err == nil {
				http.Error(w, "the database is down", http.StatusServiceUnavailable)
			}
		}
	}))
	fmt.Println(err)
	os.Exit(1)
}

// leak leaves children in sessions of their own that ignore every signal and hold the output.
func leak() {
	for range 3 {
		cmd := exec.Command("/proc/self/exe", "child")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	os.Exit(4)
}

// keep adds its name to a file in its volume, says what is there, which secret and
// token it was given, and waits.
func keep() {
	f, err := os.OpenFile("/data/names", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getenv("ASHLAR_INSTANCE"))
	}
	fmt.Println("kept:", err)
	b, err := os.ReadFile("/data/names")
	fmt.Println("names:", strings.Fields(string(b)), err)
	program, _ := os.ReadFile("/proc/self/exe")
	_ = os.WriteFile("/data/program", program, 0o755)
	fmt.Println("exec data:", exec.Command("/data/program", "exits").Run())
	secret, err := os.ReadFile("/run/secrets/key")
	fmt.Println("secret:", string(secret), err)
	fmt.Println("write secret:", os.WriteFile("/run/secrets/key", nil, 0o600))
	info, _ := os.Stat("/run/secrets/key")
	fmt.Println("mode:", info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
	fmt.Println("variable:", os.Getenv("KEY"), "fence:", os.Getenv("ASHLAR_FENCE"))
	wait()
}

// probe asks the program beside it, and fails while that is not well. It must see the
// secret, and neither the volume nor the tmpfs of the program.
func probe() {
	if b, err := os.ReadFile("/run/secrets/key"); err != nil || len(b) == 0 {
		fmt.Println("no secret:", err)
		os.Exit(3)
	}
	for _, path := range []string{"/data/names", "/tmp/sick"} {
		if _, err := os.Stat(path); err == nil {
			fmt.Println("sees", path)
			os.Exit(4)
		}
	}
	res, err := http.Get("http://127.0.0.1:" + os.Getenv("PORT") + "/")
	if err != nil {
		fmt.Println(err)
		os.Exit(5)
	}
	if res.StatusCode != http.StatusOK {
		fmt.Println("the program says", res.Status)
		os.Exit(6)
	}
}

func child() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	select {}
}

func fill() {
	f, err := os.Create("/tmp/big")
	if err == nil {
		_, err = io.Copy(f, endless{})
	}
	fmt.Println("full:", err)
	os.Exit(5)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func flood() {
	block := bytes.Repeat([]byte{'x'}, 1<<16)
	for range 64 {
		_, _ = os.Stdout.Write(block)
	}
	fmt.Println("\nflooded")
	if len(os.Args) > 2 {
		os.Exit(1)
	}
}

func eat() {
	var kept [][]byte
	for {
		kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
	}
}

func lines() {
	n, _ := strconv.Atoi(os.Args[2])
	for i := range n {
		fmt.Printf("line %06d %s\n", i, strings.Repeat("-", 80))
	}
	wait()
}

// look tells what it can see and do, one "name: value" a line.
// tried is a run test: status 0 when it finds what a trial is to have, and nothing else.
func tried() {
	wrong := func(format string, args ...any) { fmt.Printf(format+"\n", args...); os.Exit(1) }
	if err := os.WriteFile("/file", nil, 0o600); err == nil {
		wrong("the root is writable")
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 1 || links[0].Flags&net.FlagUp == 0 {
		wrong("interfaces: %v, %v", links, err)
	}
	if l, err := net.Listen("tcp", "127.0.0.1:80"); err != nil {
		wrong("%v", err)
	} else {
		_ = l.Close()
	}
	if fd, err := unix.MemfdCreate("x", unix.MFD_EXEC); err == nil && exists("/proc/sys/vm/memfd_noexec") {
		wrong("it can execute from memory: descriptor %d", fd)
	}
	if got := fmt.Sprint(os.Getuid(), os.Getgid(), os.Getenv("GREETING"), os.Args[2:]); got != "65532 65532hello[word two]" {
		wrong("it is run as %q", got)
	}
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

func look() {
	say := func(name string, v any) { fmt.Printf("%s: %v\n", name, v) }
	for _, path := range []string{"/file", "/dev/file", "/sys/file", "/etc/file", "/proc/sys/kernel/hostname", "/bin/guest"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_ = f.Close()
		}
		say("write "+path, err)
	}
	program, _ := os.ReadFile("/proc/self/exe")
	say("write tmp", os.WriteFile("/tmp/program", program, 0o755))
	say("exec tmp", exec.Command("/tmp/program", "exits").Run())
	fd, err := unix.MemfdCreate("x", unix.MFD_EXEC)
	say("memfd exec", err)
	if err == nil {
		_ = unix.Close(fd)
	}
	if fd, err = unix.MemfdCreate("x", 0); err == nil {
		_, _ = unix.Write(fd, program)
		say("exec memfd", exec.Command("/proc/self/fd/"+strconv.Itoa(fd), "exits").Run())
	}
	_, err = unix.Open("/proc/sys/vm/memfd_noexec", unix.O_WRONLY, 0)
	say("memfd sysctl", err)
	for name, file := range map[string]string{"hosts": "/etc/hosts", "config": "/etc/guest.conf"} {
		b, _ := os.ReadFile(file)
		say(name, string(b))
	}
	host, _ := os.Hostname()
	say("hostname", host)
	say("uid", os.Getuid())
	say("gid", os.Getgid())
	say("env", strings.Join(os.Environ(), " "))
	for _, name := range []string{"/proc/self/status", "/proc/self/mounts", "/proc/net/route", "/proc/net/dev"} {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			fmt.Print(name, "| ", line)
		}
	}
	say("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	say("reach", func() error { _, err := http.Get("http://192.0.2.1/"); return err }())
	say("null", func() error { f, err := os.OpenFile("/dev/null", os.O_RDWR, 0); _ = f.Close(); return err }())
}
