package router

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// testMain lets the test binary be a router of its own, to be killed.
func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if dir := os.Getenv("ROUTER_TEST_RUN_DIR"); dir != "" {
		if err := Serve(context.Background(), Config{RunDir: dir, TakeOver: os.Getenv("ROUTER_TEST_TAKE_OVER") != ""}); err != nil {
			os.Stderr.WriteString(err.Error())
			return 1
		}
		return 0
	}
	return m.Run()
}

// apart replaces the rig's router by one in a process of its own.
func (g *rig) apart() *exec.Cmd {
	g.t.Helper()
	if err := g.stop(); err != nil {
		g.t.Fatal(err)
	}
	return g.launch()
}

// launch starts a router process; env says how.
func (g *rig) launch(env ...string) *exec.Cmd {
	g.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "ROUTER_TEST_RUN_DIR="+g.dir)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may be gone already
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	g.await("the process to answer", func() bool {
		h, err := g.Health(context.Background())
		return err == nil && h.PID == cmd.Process.Pid
	})
	return cmd
}
