package load

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kgo"
)

//go:embed Reader.java
var readerSource []byte

// A Group is what the members of a consumer group were given and have read of one
// topic. Members have the settings that their library comes with, and begin at the
// first offset. Any goroutine.
type Group struct {
	Name string

	mu      sync.Mutex
	owners  map[int32]int // which member has a partition
	given   int           // times that a member got partitions, or was told that there is nothing new
	taken   int           // times that a member lost some
	next    map[int32]int64
	skipped int64
	again   int64
	failed  error // the first
	ended   bool  // members that go now do so for a reason
}

func newGroup(name string) *Group {
	return &Group{Name: name, owners: map[int32]int{}, next: map[int32]int64{}}
}

// Whole says whether each of the partitions has a member, and each member has some.
func (g *Group) Whole(partitions int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := map[int]bool{}
	for _, m := range g.owners {
		members[m] = true
	}
	return len(g.owners) == partitions && len(members) == membersEach
}

// Rebalances is how often members were given partitions or lost some until now. It
// stands still while the group does.
func (g *Group) Rebalances() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.given + g.taken
}

// Next is the offset behind the last record that was read of a partition.
func (g *Group) Next(partition int32) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next[partition]
}

// Err tells of records that were left out or read again, and of members that have failed.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil || g.skipped > 0 || g.again > 0 {
		return fmt.Errorf("%s: %d records left out, %d read again, failed: %v", g.Name, g.skipped, g.again, g.failed)
	}
	return nil
}

func (g *Group) assigned(member int, partitions []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.given++
	for _, p := range partitions {
		g.owners[p] = member
	}
}

func (g *Group) revoked(member int, partitions []int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.taken++
	for _, p := range partitions {
		if g.owners[p] == member {
			delete(g.owners, p)
		}
	}
}

func (g *Group) read(partition int32, first, count int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.next[partition]
	g.skipped += max(0, first-next)
	g.again += max(0, min(next, first+count)-first)
	g.next[partition] = max(next, first+count)
}

func (g *Group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		g.failed = err
	}
}

// Members are groups that read a topic. End them by Close.
type Members struct {
	Groups []*Group
	stop   context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup
	java   io.Closer
	cmd    *exec.Cmd
}

// membersEach is how many members a group has.
const membersEach = 2

// NewMembers starts the members of a group for each library and protocol: Java's newest,
// classic and consumer, librdkafka and franz-go. dir is for logs.
func NewMembers(ctx context.Context, bootstrap, topic, dir string) (*Members, error) {
	m := &Members{}
	m.ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := errors.Join(m.startJava(ctx, bootstrap, topic, dir), m.startFranz(bootstrap, topic), m.startLibrdkafka(bootstrap, topic)); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close has all members leave and waits for them.
func (m *Members) Close() {
	for _, g := range m.Groups {
		g.mu.Lock()
		g.ended = true
		g.mu.Unlock()
	}
	m.stop()
	if m.java != nil {
		m.java.Close()
	}
	m.done.Wait()
	if m.cmd != nil {
		m.cmd.Wait()
	}
}

func (m *Members) group(name string) *Group {
	g := newGroup(name)
	m.Groups = append(m.Groups, g)
	return g
}

const readerVersion = "4.3.1"

func (m *Members) startJava(ctx context.Context, bootstrap, topic, dir string) error {
	classPath, classes, err := fetchJava(ctx, readerVersion, "Reader", readerSource, dir)
	if err != nil {
		return err
	}
	args := append(slices.Clone(peer.QuickJVM), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", classes+string(filepath.ListSeparator)+classPath, "Reader", topic)
	var groups []*Group // of each member
	for _, protocol := range []string{"classic", "consumer"} {
		g := m.group("java-" + readerVersion + "-" + protocol)
		for range membersEach {
			args = append(args, fmt.Sprintf("bootstrap.servers=%s,group.id=%s,group.protocol=%s,auto.offset.reset=earliest", bootstrap, g.Name, protocol))
			groups = append(groups, g)
		}
	}
	log, err := os.Create(filepath.Join(dir, "reader.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command("java", args...)
	m.cmd.Stderr = log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if m.java, err = m.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.cmd.Start(); err != nil {
		m.cmd, m.java = nil, nil
		return err
	}
	m.done.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			hear(groups, lines.Text())
		}
	})
	return nil
}

// hear takes a line of Reader's.
func hear(groups []*Group, line string) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return
	}
	member, err := strconv.Atoi(words[0])
	if err != nil || member < 0 || member >= len(groups) {
		return // something else that the library prints
	}
	g := groups[member]
	var numbers []int64
	for _, w := range words[2:] {
		if n, err := strconv.ParseInt(w, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	partitions := make([]int32, len(numbers))
	for i, n := range numbers {
		partitions[i] = int32(n)
	}
	switch words[1] {
	case "assigned":
		g.assigned(member, partitions)
	case "revoked", "lost":
		g.revoked(member, partitions)
	case "read":
		if len(numbers) == 3 {
			g.read(partitions[0], numbers[1], numbers[2])
		}
	case "failed":
		g.fail(fmt.Errorf("%w: %s", errJava, strings.Join(words[2:], " ")))
	}
}

func (m *Members) startFranz(bootstrap, topic string) error {
	g := m.group("franz-go")
	for member := range membersEach {
		client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(g.Name), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { g.assigned(member, p[topic]) }),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { g.revoked(member, p[topic]) }),
			kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { g.revoked(member, p[topic]) }))
		if err != nil {
			return err
		}
		m.done.Go(func() {
			defer client.Close()
			for m.ctx.Err() == nil {
				fetches := client.PollFetches(m.ctx)
				fetches.EachError(func(_ string, partition int32, err error) {
					if m.ctx.Err() == nil {
						g.fail(fmt.Errorf("partition %d: %w", partition, err))
					}
				})
				fetches.EachRecord(func(r *kgo.Record) { g.read(r.Partition, r.Offset, 1) })
			}
		})
	}
	return nil
}

func (m *Members) startLibrdkafka(bootstrap, topic string) error {
	g := m.group("librdkafka")
	numbers := func(all []kafka.TopicPartition) []int32 {
		partitions := make([]int32, len(all))
		for i, p := range all {
			partitions[i] = p.Partition
		}
		return partitions
	}
	for member := range membersEach {
		client, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": bootstrap, "group.id": g.Name, "auto.offset.reset": "earliest", "log_level": 0})
		if err != nil {
			return err
		}
		if err := client.Subscribe(topic, func(_ *kafka.Consumer, event kafka.Event) error {
			switch e := event.(type) {
			case kafka.AssignedPartitions:
				g.assigned(member, numbers(e.Partitions))
			case kafka.RevokedPartitions:
				g.revoked(member, numbers(e.Partitions))
			}
			return nil
		}); err != nil {
			client.Close()
			return err
		}
		m.done.Go(func() {
			defer client.Close()
			for m.ctx.Err() == nil {
				r, err := client.ReadMessage(100 * time.Millisecond)
				var failed kafka.Error
				switch {
				case err == nil:
					g.read(r.TopicPartition.Partition, int64(r.TopicPartition.Offset), 1)
				case errors.As(err, &failed) && (failed.IsTimeout() || !failed.IsFatal() && failed.Code() < 0):
					// Nothing came, or a connection is gone, which it mends by itself.
				default:
					g.fail(err)
					return
				}
			}
		})
	}
	return nil
}
