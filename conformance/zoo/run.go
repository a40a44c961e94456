package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// phaseTimeout bounds one run of a program. A program that reads others'
	// topics gets topicTimeout more for each of them.
	phaseTimeout = 4 * time.Minute
	topicTimeout = time.Second

	// maxLineBytes bounds a line of a program's output: a record in hexadecimal
	// and its frame, many times over.
	maxLineBytes = 1 << 20
	// maxLines bounds what is kept of one run.
	maxLines = 100_000
)

// A zoo runs rows against one server.
type zoo struct {
	tools     *Tools
	bootstrap string
	rows      []Row
	parallel  int
	logf      func(format string, args ...any)

	programs map[string]Program
	mu       sync.Mutex
	results  results // guarded by mu while programs run
}

// run installs all rows, then lets each do what it can, then write what the
// others read, then read it. A row that fails stays in the table with what
// failed; the error is about the zoo itself.
func (z *zoo) run(ctx context.Context) (results, error) {
	if err := z.install(ctx); err != nil {
		z.logf("%v", err)
	}
	if err := z.createTopics(ctx); err != nil {
		return z.results, err
	}
	// A row's two first phases do not need the other rows.
	z.each(ctx, func(r Row) {
		z.own(ctx, r)
		if len(r.Codecs) > 0 && r.impossible(phaseProduce) == "" {
			z.produce(ctx, r)
		}
	})
	z.each(ctx, func(r Row) {
		if len(r.reads()) > 0 && r.impossible(phaseConsume) == "" {
			z.consume(ctx, r)
		}
	})
	return z.results, ctx.Err()
}

// install goes on after a failure, so that one run names everything missing. A
// row whose language the machine does not have is left out, except in CI.
func (z *zoo) install(ctx context.Context) error {
	z.programs = map[string]Program{}
	var failed []error
	for _, r := range slices.Clone(z.rows) {
		began := time.Now()
		program, err := r.Install(ctx, z.tools)
		if errors.Is(err, peer.ErrMissingTool) && os.Getenv("CI") != "true" {
			z.logf("%s: skipped: %v", r.Name, err)
			z.rows = slices.DeleteFunc(z.rows, func(other Row) bool { return other.Name == r.Name })
			continue
		}
		if err != nil {
			if r.impossible("install") == "" {
				failed = append(failed, fmt.Errorf("%s: install: %w", r.Name, err))
			}
			z.results.set(r.Name, check{Name: "install", Error: firstLine(err)})
			continue
		}
		z.programs[r.Name] = program
		if took := time.Since(began); took > time.Second {
			z.logf("%s: installed in %s", r.Name, took.Round(time.Millisecond))
		}
	}
	return errors.Join(failed...)
}

// each calls f for every installed row, some at a time.
func (z *zoo) each(ctx context.Context, f func(Row)) {
	var running sync.WaitGroup
	slots := make(chan struct{}, z.parallel)
	for _, r := range z.rows {
		if _, ok := z.programs[r.Name]; !ok || ctx.Err() != nil {
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			f(r)
		})
	}
	running.Wait()
}

// createTopics makes the topics of the cross matrix.
func (z *zoo) createTopics(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(z.bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for _, r := range z.rows {
		for _, codec := range r.Codecs {
			created, err := admin.CreateTopic(ctx, 1, 1, nil, r.topic(codec))
			if err = errors.Join(err, created.Err); err != nil {
				return fmt.Errorf("create topic %s: %w", r.topic(codec), err)
			}
		}
	}
	return nil
}

func (z *zoo) own(ctx context.Context, r Row) {
	checks, _, err := z.phase(ctx, r, phaseOwn, nil)
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range checks {
		z.judge(r, c)
	}
	z.end(r, phaseOwn, err)
	if err == nil && len(checks) == 0 {
		z.end(r, phaseOwn, errors.New("the program printed no check"))
	}
}

func (z *zoo) produce(ctx context.Context, r Row) {
	var topics []string
	for _, codec := range r.Codecs {
		topics = append(topics, r.topic(codec))
	}
	checks, _, err := z.phase(ctx, r, phaseProduce, topics)
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range checks {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.Error))
		}
	}
	z.end(r, phaseProduce, err)
}

// consume lets r read what every row wrote in the codecs that r knows.
func (z *zoo) consume(ctx context.Context, r Row) {
	topics, sources := z.written(r)
	checks, records, err := z.phase(ctx, r, phaseConsume, topics)
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range checks {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.Error))
		}
	}
	z.end(r, phaseConsume, err)
	read := map[string][]record{}
	for _, rec := range records {
		read[rec.Topic] = append(read[rec.Topic], rec)
	}
	for _, topic := range topics {
		s := sources[topic]
		reason := compare(s.producer, r, read[topic])
		if reason != "" {
			z.logf("%s: %s by %s: %s", r.Name, s.codec, s.producer.Name, reason)
		}
		z.results.read(r.Name, s.codec, s.producer.Name, reason)
	}
}

// A source is what a topic of the cross matrix holds.
type source struct {
	producer Row
	codec    string
}

// written returns the topics that r reads, and by name what they hold.
func (z *zoo) written(r Row) (topics []string, sources map[string]source) {
	z.mu.Lock()
	defer z.mu.Unlock()
	sources = map[string]source{}
	for _, p := range z.rows {
		if _, ok := z.programs[p.Name]; !ok || p.impossible(phaseProduce) != "" {
			continue
		}
		// One failure is enough for one that has not written.
		if z.results.failed(p.Name, phaseProduce) {
			continue
		}
		for _, codec := range p.Codecs {
			if slices.Contains(r.reads(), codec) && whyUnreadable(r.Name, codec, p.Name) == "" {
				topics = append(topics, p.topic(codec))
				sources[p.topic(codec)] = source{p, codec}
			}
		}
	}
	return topics, sources
}

// judge records a check of a program. A check that is listed as impossible has
// to fail.
func (z *zoo) judge(r Row, c check) {
	if reason := r.impossible(c.Name); reason != "" {
		if !c.OK {
			return
		}
		c.OK, c.Error = false, "passes, though it is listed as impossible"
	}
	if !c.OK {
		z.logf("%s: %s: %s", r.Name, c.Name, c.Error)
	}
	z.results.set(r.Name, c)
}

// end records a phase that failed as a check of its name.
func (z *zoo) end(r Row, phase string, err error) {
	if err == nil {
		return
	}
	z.logf("%s: %s: %v (see .work/zoo/logs/%s-%s.log)", r.Name, phase, err, r.Name, phase)
	z.results.set(r.Name, check{Name: phase, Error: firstLine(err)})
}

// phase runs a row's program once. A program that is not done in time is
// killed, with all that it started: they are a process group of their own.
func (z *zoo) phase(ctx context.Context, r Row, phase string, topics []string) ([]check, []record, error) {
	limit := phaseTimeout + time.Duration(len(topics))*topicTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	program := z.programs[r.Name]
	cmd := exec.CommandContext(ctx, program.Args[0], program.Args[1:]...)
	cmd.Env = slices.Concat(os.Environ(), program.Env, []string{
		"ZOO_BOOTSTRAP=" + z.bootstrap,
		"ZOO_ROW=" + r.Name,
		"ZOO_PHASE=" + phase,
		"ZOO_TOPICS=" + strings.Join(topics, ","),
		"ZOO_CODECS=" + strings.Join(r.Codecs, ","),
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir = z.tools.Work
	log, err := os.Create(filepath.Join(z.tools.Work, "zoo", "logs", r.Name+"-"+phase+".log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	checks, records, readErr := readOutput(io.TeeReader(out, log))
	if readErr != nil {
		cancel()
	}
	err = cmd.Wait()
	if cause := context.Cause(ctx); cause != nil && readErr == nil {
		err = cause
	}
	z.logf("%s: %s took %s", r.Name, phase, time.Since(began).Round(time.Millisecond))
	return checks, records, errors.Join(readErr, err)
}

func readOutput(out io.Reader) (checks []check, records []record, err error) {
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 64<<10), maxLineBytes)
	for lines.Scan() {
		c, r, err := parseLine(bytes.Clone(lines.Bytes()))
		switch {
		case err != nil:
			return checks, records, err
		case c != nil:
			checks = append(checks, *c)
		case r != nil:
			records = append(records, *r)
		}
		if len(checks)+len(records) > maxLines {
			return checks, records, fmt.Errorf("more than %d lines of output", maxLines)
		}
	}
	return checks, records, lines.Err()
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
