package etcd_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// Some tests need a process of their own, to kill it or because etcd leaves
// goroutines behind when its files fail. That process is this test binary, with
// childEnv set to one of children and an argument.
const childEnv = "QUIRE_ETCD_TEST_CHILD"

var children = map[string]func(arg string) error{
	"open":   openChild,
	"member": memberChild,
}

func TestMain(m *testing.M) {
	if name, arg, ok := strings.Cut(os.Getenv(childEnv), "="); ok {
		if err := children[name](arg); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child is a process whose first line of output is read.
type child struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
}

func startChild(t *testing.T, name, arg string) (c *child, line string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name+"="+arg)
	cmd.Stderr = os.Stderr
	// It ends when its standard input does, if this process dies for example.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c = &child{cmd: cmd, stdout: bufio.NewReader(stdout)}
	t.Cleanup(c.kill)
	line, err = c.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("child %s: %v", name, err)
	}
	return c, strings.TrimSpace(line)
}

// kill ends the child at once, as a crash would.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// untilEnd returns when the parent has gone or asks for the end.
func untilEnd() { io.Copy(io.Discard, os.Stdin) }
