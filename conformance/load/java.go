package load

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/binary"
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

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/peer"
)

//go:embed Writer.java
var writerSource []byte

// java is a producer of Kafka's own client of some version, in a process of its
// own.
type java struct {
	cmd  *exec.Cmd
	in   *bufio.Writer
	pipe io.Closer
	read sync.WaitGroup

	mu      sync.Mutex
	next    int64
	waiting map[int64]func(int64, error)
	idle    *sync.Cond
}

// errJava is wrapped by what the Java client failed a record with.
var errJava = errors.New("java")

func javaLibrary(version string, plain bool) Library {
	return Library{Name: "java-" + version, Plain: plain, Open: func(ctx context.Context, bootstrap, dir string) (Producer, error) {
		return newJava(ctx, version, dir, patientConfig(version, plain, bootstrap))
	}}
}

// javaDefaults is the library as it comes: only from 3.0 on it is idempotent, and before
// 2.1 it sends nothing again.
func javaDefaults(version string, plain bool) Library {
	return Library{Name: "java-" + version + defaults, Plain: plain, Open: func(ctx context.Context, bootstrap, dir string) (Producer, error) {
		return newJava(ctx, version, dir, []string{"bootstrap.servers=" + bootstrap, "acks=all"})
	}}
}

// JavaClient is the class path of a version of Kafka's client.
func JavaClient(version string) peer.JarSet {
	return peer.JarSet{
		Name:      "zoo-java-" + version,
		Artifacts: []string{"org.slf4j:slf4j-simple:1.7.36", "org.apache.kafka:kafka-clients:" + version},
		Excluded:  []string{"org.slf4j:slf4j-log4j12", "com.sun.jdmk:jmxtools", "com.sun.jmx:jmxri", "javax.jms:jms"},
	}
}

// Fetch brings what the library called name needs, so that New needs no registry.
func Fetch(ctx context.Context, name string) error {
	version, ok := strings.CutPrefix(strings.TrimSuffix(name, defaults), "java-")
	if !ok {
		return nil
	}
	dir, err := peer.DataDir("", "fetch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, _, err = fetchJava(ctx, version, "Writer", writerSource, dir)
	return err
}

// fetchJava returns the class path of a version and the folder of a compiled class; dir is
// for its source.
func fetchJava(ctx context.Context, version, class string, text []byte, dir string) (classPath, classes string, err error) {
	if classPath, err = JavaClient(version).Fetch(ctx); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	source := filepath.Join(dir, class+".java")
	if err := os.WriteFile(source, text, 0o644); err != nil {
		return "", "", err
	}
	classes, err = peer.Javac(ctx, strings.ToLower(class)+"-"+version, classPath, source)
	return classPath, classes, err
}

// patientConfig never gives a record up, as far as a version can be told so: those
// before delivery.timeout.ms (KIP-91) give it up after request.timeout.ms, which is also
// how long they wait for a server that is gone.
func patientConfig(version string, plain bool, bootstrap string) []string {
	const oldRequestMillisMax = 30_000
	requestMillis := requestMillisMax
	if strings.HasPrefix(version, "0.") {
		requestMillis = oldRequestMillisMax
	}
	config := []string{
		"bootstrap.servers=" + bootstrap, "acks=all", "retries=2147483647",
		"linger.ms=" + strconv.Itoa(lingerMillis), "request.timeout.ms=" + strconv.Itoa(requestMillis),
		"retry.backoff.ms=" + strconv.Itoa(RedialMillisMax/2), "reconnect.backoff.ms=" + strconv.Itoa(RedialMillisMax/4),
		"reconnect.backoff.max.ms=" + strconv.Itoa(RedialMillisMax), "max.block.ms=600000",
	}
	if plain {
		config = append(config, "max.in.flight.requests.per.connection=1")
		if !strings.HasPrefix(version, "0.") {
			config = append(config, "enable.idempotence=false")
		}
	} else {
		config = append(config, "enable.idempotence=true")
	}
	if !strings.HasPrefix(version, "0.") {
		config = append(config, "delivery.timeout.ms=2147483647")
	}
	return config
}

func newJava(ctx context.Context, version, dir string, config []string) (Producer, error) {
	classPath, classes, err := fetchJava(ctx, version, "Writer", writerSource, dir)
	if err != nil {
		return nil, err
	}
	args := append(append([]string{}, peer.QuickJVM...), "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"-cp", classes+string(filepath.ListSeparator)+classPath, "Writer")
	args = append(args, config...)
	log, err := os.Create(filepath.Join(dir, "java-"+version+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	j := &java{waiting: map[int64]func(int64, error){}}
	j.idle = sync.NewCond(&j.mu)
	j.cmd = exec.Command("java", args...)
	j.cmd.Stderr = log
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := j.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	j.in, j.pipe = bufio.NewWriter(in), in
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	j.read.Go(func() { j.answers(out) })
	return j, nil
}

func (j *java) Send(p check.Partition, value []byte, done func(int64, error)) error {
	j.mu.Lock()
	number := j.next
	j.next++
	j.waiting[number] = done
	j.mu.Unlock()
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(p.Topic)))
	frame = append(frame, p.Topic...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(p.Number))
	frame = binary.BigEndian.AppendUint64(frame, uint64(number))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(value)))
	if _, err := j.in.Write(append(frame, value...)); err != nil {
		return err
	}
	return j.in.Flush()
}

// answers reads what the process tells, until it ends; then what is unanswered
// stays so, and Flush says it.
func (j *java) answers(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		number, rest, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			continue // something else that the library prints
		}
		j.mu.Lock()
		done := j.waiting[n]
		delete(j.waiting, n)
		if len(j.waiting) == 0 {
			j.idle.Broadcast()
		}
		j.mu.Unlock()
		if done == nil {
			continue
		}
		if offset, err := strconv.ParseInt(rest, 10, 64); err == nil {
			done(offset, nil)
		} else {
			done(-1, fmt.Errorf("%w: %s", errJava, strings.TrimPrefix(rest, "- ")))
		}
	}
}

func (j *java) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.idle.Broadcast()
	})
	defer stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.waiting) > 0 && ctx.Err() == nil {
		j.idle.Wait()
	}
	if n := len(j.waiting); n > 0 {
		return fmt.Errorf("%d records not delivered: %w", n, context.Cause(ctx))
	}
	return nil
}

func (j *java) Close() {
	j.pipe.Close()
	j.cmd.Process.Kill()
	j.read.Wait()
	j.cmd.Wait()
}
