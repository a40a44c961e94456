package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Process is a program that this suite started, and the only kind it ends.
type Process struct {
	cmd     *exec.Cmd
	logPath string
	started time.Time
	exited  chan struct{}
	err     error // of Wait; read after exited is closed
}

// startProcess runs cmd on a host with both outputs appended to logPath, behind a
// filter of system calls if decide is not nil. The child dies with this process,
// however that ends.
func startProcess(host *Host, cmd *exec.Cmd, logPath string, decide Interceptor) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C at a terminal is for this process to answer.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	serve := func() error { return nil }
	if decide != nil {
		if serve, err = intercept(cmd, decide); err != nil {
			return nil, fmt.Errorf("intercept %s: %w", cmd.Path, err)
		}
	}
	if err := host.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, logPath: logPath, started: time.Now(), exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		served := make(chan error, 1)
		go func() { served <- serve() }()
		p.err = cmd.Wait()
		p.err = errors.Join(p.err, <-served)
	}()
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Started is when the process began to run.
func (p *Process) Started() time.Time { return p.started }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitCode is the exit status, -1 after a signal. It waits for the end.
func (p *Process) ExitCode() int {
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends sig.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// Stop sends SIGTERM and waits. An exit status other than 0 is an error, as is
// a process still there when ctx ends, which is then killed. A JVM exits with
// 143 after SIGTERM; that counts as clean.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("process %d did not end after SIGTERM: %w", p.PID(), context.Cause(ctx))
	}
	const jvmTerminated = 128 + int(syscall.SIGTERM)
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.ExitCode() == jvmTerminated {
		return nil
	}
	return p.err
}

// LogTail returns the last lines of the process's output.
func (p *Process) LogTail(lines int) string {
	b, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return lastLines(b, lines)
}

// Usage is what a process has used of the machine so far.
type Usage struct {
	CPU          time.Duration // user and system time of all its threads
	RSSBytes     int64
	PeakRSSBytes int64
}

// clockTicksPerSecond is USER_HZ, the unit of /proc/PID/stat, fixed at 100 by
// Linux's ABI on every architecture Go runs on.
const clockTicksPerSecond = 100

// Usage is UsageOf the process.
func (p *Process) Usage() (Usage, error) { return UsageOf(p.PID()) }

// UsageOf reads /proc. It fails when the process has ended.
func UsageOf(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Usage{}, err
	}
	// The second field is the command in parentheses and may hold spaces.
	_, rest, ok := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return Usage{}, fmt.Errorf("%s/stat: unexpected form", dir)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return Usage{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	u := Usage{CPU: time.Duration(user+system) * (time.Second / clockTicksPerSecond)}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Usage{}, err
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			u.RSSBytes = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			u.PeakRSSBytes = kb << 10
		}
	}
	return u, nil
}
