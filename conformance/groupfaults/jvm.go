package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/quirelog/quire/conformance/peer"
)

// javaClients are the generations of the Java client.
var javaClients = map[string]peer.JarSet{"java-3.9.1": peer.Tools3, "java-4.3.1": peer.Tools4}

//go:embed Members.java
var membersSource []byte

// A jvm runs the members of one generation of the Java client: a process for
// each would be most of the machine.
type jvm struct {
	library string
	rec     *recorder
	cmd     *exec.Cmd
	in      io.WriteCloser
	read    sync.WaitGroup

	mu      sync.Mutex
	members map[string]*javaMember
	err     error // why nothing more is read
}

// javaMember is one member as its process tells of it.
type javaMember struct {
	m       *member
	closed  chan struct{}
	commits map[string]func(error, map[int32]error) // by number, not yet answered
}

// startJVM starts a generation's process. Its errors go to a file in dir.
func startJVM(ctx context.Context, library, dir, bootstrap string, t timing, rec *recorder) (*jvm, error) {
	classPath, err := javaClients[library].Fetch(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(dir, "Members.java")
	if err := os.WriteFile(source, membersSource, 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, library+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	j := &jvm{library: library, rec: rec, members: map[string]*javaMember{}}
	// The second compiler would take more of a run's minutes than it gives back.
	j.cmd = exec.Command("java", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", // and why a member joins:
		"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.consumer.internals.ConsumerCoordinator=info", "-cp", classPath, source, topic)
	j.cmd.Args = append(j.cmd.Args, javaArguments(bootstrap, t)...)
	j.cmd.Stderr = log
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if j.in, err = j.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := j.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", library, err)
	}
	j.read.Go(func() { j.events(out) })
	return j, nil
}

// javaArguments are the time between commits, that of a poll, and what all members are
// configured with.
func javaArguments(bootstrap string, t timing) []string {
	args := []string{
		strconv.FormatInt(t.commit.Milliseconds(), 10), strconv.FormatInt(t.poll().Milliseconds(), 10), "bootstrap.servers=" + bootstrap, "enable.metrics.push=false",
		// By its default since 4.0 (KIP-899) a client that reaches no broker forgets
		// all metadata, and the leader of a classic group then joins again since its
		// topics seem to have changed: with one server, at every restart of it, Kafka's too.
		"metadata.recovery.strategy=none",
	}
	for _, p := range []struct {
		name string
		d    time.Duration
	}{
		{"session.timeout.ms", t.session},
		{"heartbeat.interval.ms", t.heartbeat},
		{"max.poll.interval.ms", 4 * rebalanceTimeout},
		{"fetch.max.wait.ms", fetchWait},
		{"reconnect.backoff.ms", t.redial / 4},
		{"reconnect.backoff.max.ms", t.redial},
		{"retry.backoff.ms", t.redial / 2},
		{"retry.backoff.max.ms", t.redial},
		{"request.timeout.ms", 10 * time.Second},
		{"default.api.timeout.ms", commitTimeout},
	} {
		args = append(args, p.name+"="+strconv.FormatInt(p.d.Milliseconds(), 10))
	}
	return args
}

func (j *jvm) command(words ...string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := io.WriteString(j.in, strings.Join(words, " ")+"\n")
	return err
}

// close ends the process and waits for it.
func (j *jvm) close() {
	j.cmd.Process.Kill()
	j.read.Wait()
	j.cmd.Wait()
}

// open is member.open for Java.
func (j *jvm) open(m *member) (run func(), err error) {
	own := &javaMember{m: m, closed: make(chan struct{}), commits: map[string]func(error, map[int32]error){}}
	j.mu.Lock()
	if err = j.err; err == nil {
		j.members[m.name] = own
	}
	j.mu.Unlock()
	if err == nil {
		err = j.command("join", m.name, m.group, m.flavor.Assignor)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		<-m.ctx.Done()
		if m.isSilent() {
			j.command("silence", m.name)
			<-m.audible
		}
		j.command("leave", m.name)
		<-own.closed
	}, nil
}

// events reads what the process tells until it ends.
func (j *jvm) events(out io.Reader) {
	err := errors.New("it ended")
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if e := j.event(lines.Text()); e != nil {
			err = fmt.Errorf("it says %q: %w", lines.Text(), e)
			break
		}
	}
	io.Copy(io.Discard, out)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = fmt.Errorf("%s: %w", j.library, errors.Join(err, lines.Err()))
	for name, own := range j.members {
		j.rec.failed(name, j.err)
		close(own.closed)
	}
	clear(j.members)
}

func (j *jvm) event(line string) error {
	words := strings.SplitN(line, " ", 4)
	if len(words) < 3 {
		return errors.New("too few words")
	}
	nanos, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return err
	}
	rest := ""
	if len(words) == 4 {
		rest = words[3]
	}
	j.mu.Lock()
	own := j.members[words[1]]
	j.mu.Unlock()
	if own == nil {
		return errors.New("an unknown member")
	}
	return own.event(j, j.rec.atMonotonic(nanos), words[2], rest)
}

// event applies one event of the member.
func (o *javaMember) event(j *jvm, at int64, what, rest string) error {
	m := o.m
	switch what {
	case "assigned", "revoked", "lost":
		kind := map[string]groupcheck.Kind{"assigned": groupcheck.Assigned, "revoked": groupcheck.Revoked, "lost": groupcheck.Lost}[what]
		numbers := []int32{}
		for _, word := range strings.Fields(rest) {
			n, err := strconv.ParseInt(word, 10, 32)
			if err != nil {
				return err
			}
			numbers = append(numbers, int32(n))
		}
		m.toldAt(at, kind, numbers)
	case "received":
		var number int32
		var offset int64
		var count int
		if _, err := fmt.Sscan(rest, &number, &offset, &count); err != nil {
			return err
		}
		m.received(number, offset)
		if !m.isSilent() {
			m.rec.received(m.name, count, at)
		}
	case "commits":
		words := strings.Fields(rest)
		offsets := map[int32]int64{}
		for _, word := range words[1:] {
			var number int32
			var offset int64
			if _, err := fmt.Sscanf(word, "%d:%d", &number, &offset); err != nil {
				return err
			}
			offsets[number] = offset
		}
		o.commits[words[0]] = m.callingAt(at, offsets)
	case "committed":
		number, text, failed := strings.Cut(rest, " ")
		var err error
		if failed {
			err = errors.New(text)
		}
		o.commits[number](err, nil)
		delete(o.commits, number)
	case "error":
		m.rec.seen(m.flavor.Library, rest)
	case "fatal":
		if !m.isSilent() {
			m.rec.failed(m.name, errors.New(rest))
		}
	case "closed":
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.members, m.name)
		close(o.closed)
	default:
		return errors.New("an unknown event")
	}
	return nil
}
