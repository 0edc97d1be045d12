// Command ashlar-judge evaluates policies for the server, which starts it: questions
// come in on the standard input, one JSON value a line, and answers go out. It is a
// program of its own so that the library that evaluates expressions costs nobody
// else's start, and so that no expression can do the server any harm: it can be killed.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/judge"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

const (
	maxQuestion = 2*policy.MaxFacts + 2*policy.MaxSize // bytes of a line
	maxMemory   = 2 << 30                              // bytes of address space for data
)

func main() { os.Exit(run(os.Stdin, os.Stdout, os.Stderr)) }

func run(in io.Reader, out, stderr io.Writer) int {
	if err := serve(in, out); err != nil {
		fmt.Fprintln(stderr, "ashlar-judge:", err)
		return 1
	}
	return 0
}

func serve(in io.Reader, out io.Writer) error {
	limit := unix.Rlimit{Cur: maxMemory, Max: maxMemory}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &limit); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	j, err := judge.New(time.LoadLocation)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxQuestion)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		var q policy.Question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return errors.New("ashlar-judge is started by the ashlar server, which asks it: " + err.Error())
		}
		if err := enc.Encode(j.Answer(q)); err != nil {
			return err
		}
	}
	return lines.Err()
}
