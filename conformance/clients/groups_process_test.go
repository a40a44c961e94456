package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// Members in processes of their own: Kafka's VerifiableConsumer, and scripts
// that speak as it does.

var javaAssignors = map[string]string{
	"range":              "org.apache.kafka.clients.consumer.RangeAssignor",
	"roundrobin":         "org.apache.kafka.clients.consumer.RoundRobinAssignor",
	"sticky":             "org.apache.kafka.clients.consumer.StickyAssignor",
	"cooperative-sticky": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}

var javaMembers = []memberKind{
	{library: "java-4.3.1", protocol: "classic", assignor: "range", static: true, start: startJava(peer.Tools4), short: true},
	{library: "java-4.3.1", protocol: "classic", assignor: "roundrobin", static: true, start: startJava(peer.Tools4)},
	{library: "java-4.3.1", protocol: "classic", assignor: "sticky", static: true, start: startJava(peer.Tools4)},
	{library: "java-4.3.1", protocol: "classic", assignor: "cooperative-sticky", static: true, start: startJava(peer.Tools4)},
	{library: "java-4.3.1", protocol: "consumer", assignor: "uniform", static: true, start: startJava848(peer.Tools4), short: true},
	{library: "java-4.3.1", protocol: "consumer", assignor: "range", static: true, start: startJava848(peer.Tools4)},
	{library: "java-3.9.1", protocol: "classic", assignor: "range", static: true, start: startJava(peer.Tools3)},
	{library: "java-3.9.1", protocol: "classic", assignor: "cooperative-sticky", static: true, start: startJava(peer.Tools3), short: true},
	{library: "java-3.9.1", protocol: "consumer", assignor: "uniform", static: true, start: startJava848(peer.Tools3)},
}

var scriptMembers = []memberKind{
	{library: "kafka-python", protocol: "classic", assignor: "range", static: true, start: startPython, short: true},
	{library: "kafka-python", protocol: "classic", assignor: "roundrobin", static: true, start: startPython},
	{library: "kafka-python", protocol: "classic", assignor: "sticky", static: true, start: startPython},
	{library: "kafka-python", protocol: "classic", assignor: "cooperative-sticky", static: true, start: startPython, short: true},
	{library: "kafkajs", protocol: "classic", assignor: "RoundRobinAssigner", start: startKafkaJS, short: true},
}

const verifiableConsumer = "org.apache.kafka.tools.VerifiableConsumer"

func startJava(set peer.JarSet) func(*testing.T, memberOptions) *member {
	return func(t *testing.T, o memberOptions) *member {
		config := fmt.Sprintf("heartbeat.interval.ms=%d\nfetch.max.wait.ms=250\n", memberHeartbeat.Milliseconds())
		return startVerifiable(t, set, o, config, "--assignment-strategy", javaAssignors[o.assignor],
			"--session-timeout", strconv.FormatInt(memberSession.Milliseconds(), 10))
	}
}

func startJava848(set peer.JarSet) func(*testing.T, memberOptions) *member {
	return func(t *testing.T, o memberOptions) *member {
		return startVerifiable(t, set, o, "fetch.max.wait.ms=250\n", "--group-protocol", "consumer", "--group-remote-assignor", o.assignor)
	}
}

func startVerifiable(t *testing.T, set peer.JarSet, o memberOptions, config string, args ...string) *member {
	t.Helper()
	args = append(args, "--bootstrap-server", broker.Addr(), "--topic", o.topic, "--group-id", o.group, "--verbose",
		"--reset-policy", "earliest", "--consumer.config", writeFile(t, "consumer.properties", config+o.java))
	if o.instance != "" {
		args = append(args, "--group-instance-id", o.instance)
	}
	cmd, err := peer.ToolCommand(t.Context(), set, peer.QuickJVM, verifiableConsumer, args...)
	need(t, err)
	return startProcess(t, set.Name+" "+o.instance, cmd)
}

func startPython(t *testing.T, o memberOptions) *member {
	t.Helper()
	cmd, err := peer.KafkaPython.Command(t.Context(), script(t, "kafka_python_member.py"), broker.Addr(), o.group, o.topic, o.instance, o.assignor,
		strconv.FormatInt(memberHeartbeat.Milliseconds(), 10), strconv.FormatInt(memberSession.Milliseconds(), 10))
	need(t, err)
	return startProcess(t, "kafka-python "+o.instance, cmd)
}

func startKafkaJS(t *testing.T, o memberOptions) *member {
	t.Helper()
	cmd, err := peer.KafkaJS.Command(t.Context(), script(t, "kafkajs_member.js"), broker.Addr(), o.group, o.topic,
		strconv.FormatInt(memberHeartbeat.Milliseconds(), 10), strconv.FormatInt(memberSession.Milliseconds(), 10))
	need(t, err)
	return startProcess(t, "kafkajs", cmd)
}

func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// memberEvent is one line of a member's standard output.
type memberEvent struct {
	Name       string `json:"name"`
	Partition  int32  `json:"partition"`
	Offset     int64  `json:"offset"`
	Success    *bool  `json:"success"`
	Error      string `json:"error"`
	Partitions []struct {
		Partition int32 `json:"partition"`
	} `json:"partitions"`
}

// startProcess runs a member that ends by itself, with status 0, on SIGTERM.
func startProcess(t *testing.T, name string, cmd *exec.Cmd) *member {
	t.Helper()
	m := newMember(t, name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errOut := &lockedBuffer{}
	cmd.Stderr = errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said\n%s", name, errOut)
		}
	})
	stopping, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e memberEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				continue // the program's own chatter
			}
			m.event(e)
		}
		err := cmd.Wait()
		select {
		case <-stopping:
		default:
			m.fail(fmt.Errorf("ended: %v\n%s", err, errOut.String()))
		}
		ended <- err
	}()
	m.stop = func() error {
		close(stopping)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		kill := time.AfterFunc(stepTimeout, func() { cmd.Process.Kill() })
		defer kill.Stop()
		err := <-ended
		// A JVM that ends in order after SIGTERM has status 143 all the same.
		const afterSIGTERM = 128 + int(syscall.SIGTERM)
		if cmd.ProcessState.ExitCode() == afterSIGTERM {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, errOut.String())
		}
		return nil
	}
	return m
}

// lockedBuffer keeps what a process writes, for reading while it runs.
type lockedBuffer struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes.String()
}

func (m *member) event(e memberEvent) {
	var partitions []int32
	for _, p := range e.Partitions {
		partitions = append(partitions, p.Partition)
	}
	switch e.Name {
	case "partitions_assigned":
		m.assign(partitions...)
	case "partitions_revoked":
		m.revoke(partitions...)
	case "record_data":
		m.record(e.Partition, e.Offset)
	case "offsets_committed":
		// An empty error is how an older version says that it had none.
		if e.Success != nil && !*e.Success && !strings.Contains(e.Error, "woken") {
			m.fail(fmt.Errorf("commit: %s", e.Error))
		}
	}
}
