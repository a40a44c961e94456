package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// groups is the command groupfaults, which leads members of groups through this
// run: it tells them to come through a tap of its own, and knows nothing of the
// servers behind.
type groups struct {
	cmd    *exec.Cmd
	in     io.Closer // its end tells that no more harm is done
	done   chan error
	log    string
	report string
}

// A groupReport is what the command says at its end.
type groupReport struct {
	Came, Left, Silenced   int
	Commits, Acked, Reads  int
	Records, Told, Uncause int
	Mute                   []string // members whose libraries said nothing any more by themselves
	Violations             []string
	Fatal                  []string
	UserErrors             string
}

// groupsEnd bounds the time from the end of all harm to the end of the command.
const groupsEnd = 3 * time.Minute

func (r *run) startGroups(ctx context.Context) (*groups, error) {
	p := r.plan
	if p.groups == 0 {
		return &groups{}, nil
	}
	bin, err := peer.BuildCommand("groupfaults")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(p.dir, "groups")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	g := &groups{done: make(chan error, 1), log: filepath.Join(dir, "groupfaults.log"), report: filepath.Join(dir, "report.json")}
	g.cmd = exec.Command(bin, "-dir", dir, "-bootstrap", r.cluster.groupsAddr, "-listen", r.cluster.groupsTap, "-report", g.report, "-library-logs", dir,
		"-groups", strconv.Itoa(p.groups), "-kinds", p.groupKinds, "-changing", strconv.Itoa(p.groups/2), "-silences", "0",
		"-session", p.session.String(), "-heartbeat", "500ms", "-commit", "200ms", "-settle", "2m", "-rate", "3", "-seed", strconv.FormatUint(p.seed, 10))
	for _, n := range r.cluster.nodes {
		g.cmd.Args = append(g.cmd.Args, "-observe", n.server.Addr())
	}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	in, err := g.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	g.in = in
	log, err := os.Create(g.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g.cmd.Stdout, g.cmd.Stderr = log, log
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { g.done <- g.cmd.Wait() }()
	return g, nil
}

// finish tells the groups to come to rest and takes their report.
func (g *groups) finish(res *result) error {
	if g.cmd == nil {
		return nil
	}
	g.in.Close()
	var err error
	select {
	case err = <-g.done:
		g.done <- err
	case <-time.After(groupsEnd):
		g.kill()
		err = errors.New("it does not end")
	}
	text, readErr := os.ReadFile(g.report)
	if readErr != nil {
		log, _ := os.ReadFile(g.log)
		return fmt.Errorf("groups: %w\n%s", errors.Join(err, readErr), lastLines(log, 20))
	}
	var report groupReport
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	res.Groups = &report
	for _, v := range append(report.Violations, report.Fatal...) {
		res.Anomalies = append(res.Anomalies, "groups: "+v)
	}
	return nil
}

func (g *groups) kill() {
	if g.cmd == nil {
		return
	}
	g.cmd.Process.Kill()
	err := <-g.done
	g.done <- err
}

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
