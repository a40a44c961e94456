package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// A session is one server process on a fresh folder. Only one is ever open.
type session struct {
	server   *peer.Server
	etcd     *peer.Etcd     // of outside; else nil
	beside   []*peer.Server // whose CPU counts as well
	name     string         // in those of topics and profiles, where several sessions share what lies behind; "" if none do
	dir      string
	client   *kgo.Client
	admin    *kadm.Client
	profiles string // folder for CPU profiles, "" for none
	topics   int    // made so far, for their names
}

// prepare makes the folder and the server, and does not start it.
func prepare(ctx context.Context, dataDir, server, profiles string, overrides ...string) (*session, error) {
	// What the last server left to be written back is written before the next
	// one is measured.
	unix.Sync()
	if server == floor.Server {
		dataDir = "/dev/shm"
	}
	dir, err := os.MkdirTemp(dataDir, "bench-"+server+"-")
	if err != nil {
		return nil, err
	}
	s := &session{dir: dir}
	opts := peer.Options{Dir: filepath.Join(dir, "server"), Overrides: overrides}
	switch server {
	case "kafka":
		s.server, err = peer.NewKafka(ctx, opts)
	case floor.Server:
		s.server, err = peer.NewQuire(ctx, opts)
	case outside.Server:
		if s.etcd, err = peer.NewEtcd(filepath.Join(dir, "etcd"), 1); err == nil {
			opts.Overrides = append(slices.Clone(overrides), "etcd.endpoints="+s.etcd.Endpoints())
			s.server, err = peer.NewQuire(ctx, opts)
		}
	case "quire":
		s.server, err = peer.NewQuire(ctx, opts)
		s.profiles = profiles
	default:
		err = fmt.Errorf("unknown server %q", server)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// open starts a server on a fresh folder.
func open(ctx context.Context, dataDir, server, profiles string, overrides ...string) (*session, error) {
	s, err := prepare(ctx, dataDir, server, profiles, overrides...)
	if err != nil {
		return nil, err
	}
	if s.etcd != nil {
		if err := s.etcd.Start(ctx); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	if err := s.server.Start(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.connect(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// connect makes the admin client of a server that answers.
func (s *session) connect() error {
	var err error
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(s.server.Addr()), kgo.AlwaysRetryEOF()); err != nil {
		return err
	}
	s.admin = kadm.NewClient(s.client)
	return nil
}

// close ends the server and removes its folder.
func (s *session) close() error {
	if s.client != nil {
		s.client.Close()
	}
	err := s.server.Kill()
	if s.etcd != nil {
		s.etcd.Kill()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// cpu returns the CPU time of the server, and of those beside it, while f ran.
func (s *session) cpu(f func() error) (time.Duration, error) {
	before, err := s.usedCPU()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := s.usedCPU()
	return after - before, err
}

func (s *session) usedCPU() (used time.Duration, err error) {
	for _, server := range slices.Concat(s.beside, []*peer.Server{s.server}) {
		usage, err := server.Process().Usage()
		if err != nil {
			return 0, err
		}
		used += usage.CPU
	}
	return used, nil
}

// newTopic creates a topic and waits until each partition has a leader.
func (s *session) newTopic(ctx context.Context, partitions int, configs map[string]string) (string, error) {
	s.topics++
	topic := fmt.Sprintf("bench%s-%d", s.name, s.topics)
	values := map[string]*string{}
	for k, v := range configs {
		values[k] = &v
	}
	created, err := s.admin.CreateTopic(ctx, int32(partitions), 1, values, topic)
	if err = errors.Join(err, created.Err); err != nil {
		return "", fmt.Errorf("create topic: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		topics, err := s.admin.ListTopics(ctx, topic)
		if err != nil {
			return "", fmt.Errorf("wait for topic %s: %w", topic, err)
		}
		led := 0
		for _, p := range topics[topic].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if led == partitions {
			return topic, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("topic %s has %d leaders of %d: %w", topic, led, partitions, context.Cause(ctx))
		}
	}
}

// ends returns the end offset of every partition.
func (s *session) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	listed, err := s.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("end offsets of %s: %w", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// produce runs the perf tool on a new topic, checks that every record is
// there, and returns what it cost the server.
func (s *session) produce(ctx context.Context, label string, sh shape, c contender, run perfRun) (topic string, res perfResult, cpu time.Duration, err error) {
	topic, err = s.newTopic(ctx, sh.Partitions, c.Configs)
	if err != nil {
		return "", res, 0, err
	}
	run.Topic, run.RecordBytes = topic, sh.RecordBytes
	stopProfile := s.profile(ctx, label)
	cpu, err = s.cpu(func() error {
		res, err = run.run(ctx, s.server.Addr())
		return err
	})
	if perr := stopProfile(); err == nil {
		err = perr
	}
	if err != nil {
		return "", res, 0, fmt.Errorf("%s on %s: %w", label, s.server.Name(), err)
	}
	ends, err := s.ends(ctx, topic)
	if err != nil {
		return "", res, 0, err
	}
	var stored int64
	for _, end := range ends {
		stored += end
	}
	if stored != int64(run.Records) {
		return "", res, 0, fmt.Errorf("%s on %s: %d records sent, %d stored", label, s.server.Name(), run.Records, stored)
	}
	return topic, res, cpu, nil
}

// profile records the server's CPU until the returned function is called,
// when profiles are asked for and the server has them.
func (s *session) profile(ctx context.Context, label string) (stop func() error) {
	if s.profiles == "" || s.server.AdminAddr() == "" {
		return func() error { return nil }
	}
	const seconds = 5
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		// The client's JVM has warmed up by then.
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			done <- nil
			return
		}
		path := filepath.Join(s.profiles, strings.NewReplacer("/", "-", " ", "-").Replace(label)+s.name)
		var fetching sync.WaitGroup
		errs := make([]error, 1+len(s.beside))
		for i, server := range slices.Concat([]*peer.Server{s.server}, s.beside) {
			fetching.Go(func() {
				errs[i] = fetchProfile(ctx, server, seconds, path+strings.Repeat("-beside", min(i, 1))+".pprof")
			})
		}
		fetching.Wait()
		done <- errors.Join(errs...)
	}()
	return func() error {
		select {
		case err := <-done:
			cancel()
			return err
		default:
		}
		// A cell shorter than its profile has none.
		cancel()
		<-done
		return nil
	}
}

func fetchProfile(ctx context.Context, server *peer.Server, seconds int, path string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", server.AdminAddr(), seconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s: %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.ReadFrom(resp.Body)
	return errors.Join(err, f.Close())
}

// firstAck asks a server that is starting until one record is acknowledged.
// When create is set the topic is created first.
func (s *session) firstAck(ctx context.Context, topic string, create bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.tryAck(ctx, topic, create)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.server.Process().Exited():
			return fmt.Errorf("%s ended while starting\n%s", s.server.Name(), s.server.Process().LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s acknowledged nothing: %w", s.server.Name(), err)
		}
	}
}

func (s *session) tryAck(ctx context.Context, topic string, create bool) error {
	conn, err := wire.Dial(ctx, s.server.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if create {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = topic, 1, 1
		req.Topics = []kmsg.CreateTopicsRequestTopic{t}
		resp, err := conn.Call(ctx, req, 5)
		if err != nil {
			return err
		}
		if code := resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != 0 && code != kerr.TopicAlreadyExists.Code {
			return kerr.ErrorForCode(code)
		}
	}
	resp, err := conn.Call(ctx, wire.Produce(topic, 0, wire.Batch(-1, -1, -1, time.Now().UnixMilli(), "first")), 9)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
}
