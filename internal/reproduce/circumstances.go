package reproduce

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// circumstance is what one build finds around it.
type circumstance struct {
	place    string // directory to work in
	host     string
	uid      int // as the process sees itself
	zone     string
	locale   string
	umask    int
	cpus     int   // 0: all
	reversed bool  // files are made in the opposite order
	time     int64 // of the files
}

func circumstances() []circumstance {
	return []circumstance{
		{place: "a", host: "first", uid: 4201, zone: "UTC", locale: "C", umask: 0o022, time: 981_173_106},
		{place: "another place/ü/b", host: "second.example", uid: 60_042, zone: "Pacific/Chatham", locale: "tr_TR.UTF-8", umask: 0o077,
			cpus: 1, reversed: true, time: 1_700_000_001},
	}
}

// The things that vary.
const (
	hostName = "host name"
	user     = "user"
)

func varied(not []string) []string {
	all := []string{"directory", hostName, user, "time zone", "umask", "locale", "processors", "order, times and modes of files", "caches"}
	return slices.DeleteFunc(all, func(what string) bool {
		return slices.ContainsFunc(not, func(n string) bool { return strings.HasPrefix(n, what+":") })
	})
}

func (c circumstance) String() string {
	cpus := runtime.NumCPU()
	if c.cpus > 0 {
		cpus = c.cpus
	}
	return fmt.Sprintf("host %s, user %d, zone %s, locale %s, umask %03o, %d processors", c.host, c.uid, c.zone, c.locale, c.umask, cpus)
}

// environ is the environment of the build: the caller's, but for what varies.
func (c circumstance) environ(cache string) []string {
	drop := []string{"TZ=", "LANG=", "LANGUAGE=", "LC_", "GOCACHE=", "GOMAXPROCS=", "GOFLAGS=", "HOSTNAME=", "USER=", "LOGNAME=", "PWD=", "OLDPWD="}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return slices.ContainsFunc(drop, func(d string) bool { return strings.HasPrefix(kv, d) })
	})
	env = append(env, "TZ="+c.zone, "LANG="+c.locale, "LC_ALL="+c.locale, "HOSTNAME="+c.host, "USER=user"+fmt.Sprint(c.uid), "GOCACHE="+cache)
	if c.cpus > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", c.cpus))
	}
	return env
}

// inside runs a function on a thread that has the circumstance's host name, umask and
// processors, which a process that is started there inherits. The thread ends after it.
func (c circumstance) inside(run func() error) (not []string, err error) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			not = append(not, hostName+": "+err.Error())
		} else if err := unix.Sethostname([]byte(c.host)); err != nil {
			not = append(not, hostName+": "+err.Error())
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // the umask is the thread's own then
			done <- err
			return
		}
		unix.Umask(c.umask)
		if c.cpus > 0 {
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(0, &set); err != nil {
				done <- err
				return
			}
			if err := unix.SchedSetaffinity(0, first(&set, c.cpus)); err != nil {
				done <- err
				return
			}
		}
		done <- run()
	}()
	err = <-done
	return not, err
}

// first are the first n processors of a set.
func first(set *unix.CPUSet, n int) *unix.CPUSet {
	var out unix.CPUSet
	for i := 0; i < len(set)*64 && out.Count() < n; i++ {
		if set.IsSet(i) {
			out.Set(i)
		}
	}
	return &out
}

// asUser makes a process see itself as another user, who owns what is the caller's.
func (c circumstance) asUser() syscall.SysProcAttr {
	return syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: os.Getgid(), Size: 1}},
	}
}
