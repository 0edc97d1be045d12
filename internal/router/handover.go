package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A router hands over to the next one, of another version of the program, like this:
//
//	next: connects to the control socket, asks POST /v1/handover
//	old:  stops taking tables; answers 101, then sends its lock, its control socket and
//	      every open address as descriptors (unix(7), SCM_RIGHTS), each named in a line
//	next: puts the saved tables in force, opens nothing yet; sends "ready\n"
//	old:  stops accepting, closes its copies; sends "yours\n"
//	next: accepts. Clients that came in between wait in the kernel's queue
//
// If either dies or is slow before "yours", the old one goes on as if nothing had
// been. After it, the old one serves HTTP on the same connection (see follow.go),
// by which the next one passes tables on to it and knows what it still has.

// handTime bounds each side's wait for the other.
const handTime = 5 * time.Second

// handed is one line of what is handed over: what the descriptor sent with it is.
// The last line is Done and has none.
type handed struct {
	Kind   string `json:"kind"` // lock, control, listen
	Listen string `json:"listen,omitempty"`
	Done   bool   `json:"done,omitempty"`
}

// handOver answers the next router. While it does, tables and questions wait.
func (r *router) handOver(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending() || r.retiring.Load() {
		f := fault.New(fault.Conflict, "this router has handed over already or is ending")
		answer(w, f.Kind.HTTPStatus(), f)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		answer(w, http.StatusInternalServerError, fault.New(fault.Internal, "cannot hand over: %w", err))
		return
	}
	conn, ok := c.(*net.UnixConn)
	if ok {
		err = r.give(conn, buffered.Reader)
	} else {
		err = errors.New("not a unix socket")
	}
	if err != nil {
		r.log.Error("the next router did not take over, this one goes on", "err", err)
		c.Close() //nolint:errcheck // the next router ends by it
		return
	}
	r.log.Info("handed over", "addresses", len(r.listeners))
	r.handed <- conn
}

// give sends everything, and lets go of it when the next router is ready.
func (r *router) give(conn *net.UnixConn, in io.Reader) error {
	err := conn.SetDeadline(time.Now().Add(handTime))
	if err == nil {
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: handover\r\n\r\n")
	}
	err = errors.Join(err, sendFile(conn, handed{Kind: "lock"}, r.lock), sendFile(conn, handed{Kind: "control"}, r.socket))
	for addr, l := range r.listeners {
		if err == nil {
			err = sendFile(conn, handed{Kind: "listen", Listen: addr}, l.socket)
		}
	}
	if err == nil {
		err = sendFile(conn, handed{Done: true}, nil)
	}
	if err == nil {
		err = expect(in, "ready\n")
	}
	if err != nil {
		return err
	}
	r.retiring.Store(true)
	for _, l := range r.listeners {
		l.socket.Close() //nolint:errcheck // the next router has it
	}
	r.socket.Close() //nolint:errcheck // likewise
	if r.scrapes != nil {
		r.scrapes.Close() //nolint:errcheck // so that the next router can have the address
	}
	if _, err := io.WriteString(conn, "yours\n"); err != nil {
		r.log.Error("the next router went away as it took over", "err", err)
	}
	return conn.SetDeadline(time.Time{})
}

// sendFile sends a line with the descriptor of what it names.
func sendFile(conn *net.UnixConn, line handed, of any) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	var rights []byte
	if of != nil {
		sc, ok := of.(syscall.Conn)
		if !ok {
			return fmt.Errorf("%s has no descriptor", line.Kind)
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		// Inside Control the descriptor cannot be closed and used for something else.
		var sent error
		err = raw.Control(func(fd uintptr) {
			rights = unix.UnixRights(int(fd))
			_, _, sent = conn.WriteMsgUnix(append(data, '\n'), rights, nil)
		})
		return errors.Join(err, sent)
	}
	_, err = conn.Write(append(data, '\n'))
	return err
}

func expect(in io.Reader, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(in, got); err != nil {
		return fmt.Errorf("waiting for %q: %w", want, err)
	}
	if string(got) != want {
		return fmt.Errorf("got %q instead of %q", got, want)
	}
	return nil
}

// inheritance is what a router got from the one before.
type inheritance struct {
	conn    *net.UnixConn
	lock    *os.File
	control net.Listener
	listen  map[string]net.Listener
}

// inherit asks the router of a run directory for everything it has open. It
// returns nil if there is none.
func inherit(ctx context.Context, runDir string) (*inheritance, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socketPath(runDir))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot reach the running router: %w", err).At(socketPath(runDir))
	}
	in := &inheritance{conn: c.(*net.UnixConn), listen: map[string]net.Listener{}}
	err = in.conn.SetDeadline(time.Now().Add(handTime))
	if err == nil {
		_, err = io.WriteString(c, "POST /v1/handover HTTP/1.1\r\nHost: router\r\nConnection: Upgrade\r\nUpgrade: handover\r\n\r\n")
	}
	if err == nil {
		err = in.receive()
	}
	if err == nil && (in.lock == nil || in.control == nil) {
		err = errors.New("the lock or the control socket is missing")
	}
	if err != nil {
		in.abandon()
		return nil, fault.New(fault.Unavailable, "the running router does not hand over: %w", err).At(socketPath(runDir)).
			Mend("it goes on; to replace it with a short break, end it by SIGTERM: the server starts another")
	}
	return in, nil
}

// receive reads until the last line. Descriptors come in the order of the lines.
func (in *inheritance) receive() error {
	var data []byte
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close() //nolint:errcheck // what was wanted of it is a copy
		}
	}()
	buf, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*4))
	var lines [][]byte
	for {
		n, oobn, _, _, err := in.conn.ReadMsgUnix(buf, oob)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		got, ferr := filesOf(oob[:oobn])
		files = append(files, got...)
		if err = errors.Join(err, ferr); err != nil {
			return err
		}
		data = append(data, buf[:n]...)
		head, rest, ok := bytes.Cut(data, []byte("\r\n\r\n"))
		if ok && !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			return fmt.Errorf("it answered %q", bytes.SplitN(head, []byte("\r\n"), 2)[0])
		}
		if lines = bytes.Split(rest, []byte("\n")); ok && bytes.Contains(rest, []byte(`"done":true}`+"\n")) {
			break
		}
	}
	return in.sort(lines, files)
}

func (in *inheritance) sort(lines [][]byte, files []*os.File) error {
	for _, line := range lines {
		var what handed
		if len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &what); err != nil {
			return err
		}
		if what.Done {
			return nil
		}
		if len(files) == 0 {
			return errors.New("there are fewer descriptors than lines")
		}
		f := files[0]
		files = files[1:]
		if err := in.have(what, f); err != nil {
			return err
		}
	}
	return nil
}

func (in *inheritance) have(what handed, f *os.File) (err error) {
	switch what.Kind {
	case "lock":
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		in.lock = os.NewFile(uintptr(fd), f.Name())
	case "control":
		in.control, err = net.FileListener(f)
	case "listen":
		in.listen[what.Listen], err = net.FileListener(f)
	}
	return err // what is not known, from another version, is left alone
}

func filesOf(oob []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, err
}

// commit makes what was inherited this router's own: from here on the other
// accepts nothing.
func (in *inheritance) commit() error {
	_, err := io.WriteString(in.conn, "ready\n")
	if err == nil {
		err = expect(in.conn, "yours\n")
	}
	if err == nil {
		err = in.conn.SetDeadline(time.Time{})
	}
	if err != nil {
		in.abandon()
		return fault.New(fault.Unavailable, "the running router did not let go: %w", err).Mend("it goes on")
	}
	return nil
}

// abandon closes everything.
func (in *inheritance) abandon() {
	in.conn.Close() //nolint:errcheck // the other goes on by it
	if in.lock != nil {
		in.lock.Close() //nolint:errcheck // nothing was written
	}
	if in.control != nil {
		in.control.Close() //nolint:errcheck // nothing was accepted
	}
	for _, l := range in.listen {
		l.Close() //nolint:errcheck // nothing was accepted
	}
}

// lockFile makes this router the only one of its run directory, as long as the
// file is open in any process.
func lockFile(runDir string) (*os.File, error) {
	path := filepath.Join(runDir, "router.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot open the router's lock: %w", err).At(path)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close() //nolint:errcheck // nothing was written
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "another router runs in %s", runDir).At(path).
			Mend("use the one that runs, or stop it first, or take over from it:  ashlar router --take-over")
	}
	return nil, fault.New(fault.Unavailable, "cannot lock: %w", err).At(path)
}
