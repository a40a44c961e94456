package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A JavaClient is a process with BookKeeper's Java client, led by commands; see
// bookies/java/Ledgers.java for them. It keeps the ledgers that it wrote open
// until it is told to close them, or killed. Not safe for concurrent use.
type JavaClient struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string
	ended   chan struct{}
	err     error // of the end; read after ended is closed
	log     string
}

// ErrJava is wrapped by every error that the Java client gave as an answer.
var ErrJava = errors.New("the Java client failed")

// clientLogging leaves standard output to the answers.
const clientLogging = `<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="err" target="SYSTEM_ERR"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="err"/></Root></Loggers>
</Configuration>
`

// StartJavaClient runs the client against the cluster; protocol is v2 or v3.
func (c *BookKeeper) StartJavaClient(ctx context.Context, protocol string, jvm ...string) (*JavaClient, error) {
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	classes, err := Javac(ctx, "ledgers", c.classPath, filepath.Join(root, "bookies", "java", "Ledgers.java"))
	if err != nil {
		return nil, err
	}
	logging := filepath.Join(c.opts.Dir, "client-log4j2.xml")
	if err := os.WriteFile(logging, []byte(clientLogging), 0o644); err != nil {
		return nil, err
	}
	j := &JavaClient{answers: make(chan string, 1), ended: make(chan struct{}), log: filepath.Join(c.opts.Dir, "client.log")}
	args := slices.Concat(bookieJVM, jvm, []string{
		"-Dlog4j2.configurationFile=" + logging, "-cp", c.classPath + ":" + classes, "Ledgers",
		"metadata-store:etcd:" + strings.ReplaceAll(c.Etcd.Endpoints(), ",", ";"), protocol,
	})
	j.cmd = exec.Command("java", args...)
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(j.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	j.cmd.Stderr = log
	if j.in, err = j.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(j.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			j.answers <- lines.Text()
		}
		j.err = j.cmd.Wait()
	}()
	if _, err := j.answer(ctx); err != nil {
		j.Kill()
		return nil, fmt.Errorf("start the Java client: %w", err)
	}
	return j, nil
}

// Do sends a command and returns the words of its answer behind "ok".
func (j *JavaClient) Do(ctx context.Context, words ...any) ([]string, error) {
	command := strings.TrimSuffix(fmt.Sprintln(words...), "\n")
	if _, err := io.WriteString(j.in, command+"\n"); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", command, err, j.logTail())
	}
	answer, err := j.answer(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return answer, nil
}

func (j *JavaClient) answer(ctx context.Context) ([]string, error) {
	select {
	case line := <-j.answers:
		if words := strings.Fields(line); len(words) > 0 && words[0] == "ok" {
			return words[1:], nil
		}
		return nil, fmt.Errorf("%w: %s", ErrJava, line)
	case <-j.ended:
		return nil, fmt.Errorf("it ended: %v\n%s", j.err, j.logTail())
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w\n%s", context.Cause(ctx), j.logTail())
	}
}

func (j *JavaClient) logTail() string {
	b, err := os.ReadFile(j.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(b, 10)
}

// Kill ends the client at once; the ledgers that it had open stay open.
func (j *JavaClient) Kill() {
	j.cmd.Process.Kill()
	for {
		select {
		case <-j.answers: // one that nobody waits for any more
		case <-j.ended:
			return
		}
	}
}
