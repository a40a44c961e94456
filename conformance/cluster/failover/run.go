package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A plan is one run.
type plan struct {
	dir                string
	bin                string
	nodes, etcds       int
	topics, partitions int
	sample             int
	lease, bar         time.Duration

	bk      *peer.BookKeeper
	servers []*peer.Server
}

// A partition of a topic, by the topic's number.
type partition struct {
	topic  int
	number int32
}

const (
	bookies = 3
	// chunk is how many topics one request names.
	chunk = 50
	// retry is the time between two questions for what is not there yet.
	retry = 10 * time.Millisecond
	// limit bounds the wait for a thing that should come in seconds.
	limit = 2 * time.Minute
	// callTimeout bounds one request.
	callTimeout = time.Minute
	ownerKeys   = "quire/main/own/"
)

func topicName(i int) string { return fmt.Sprintf("idle-%05d", i) }

func (p *plan) run(ctx context.Context) (err error) {
	if err := p.start(ctx); err != nil {
		return errors.Join(err, p.end())
	}
	defer func() { err = errors.Join(err, p.end()) }()
	began := time.Now()
	if err := p.create(ctx); err != nil {
		return err
	}
	total := p.topics * p.partitions
	fmt.Printf("%d topics of %d partitions made in %s; %s\n", p.topics, p.partitions, time.Since(began).Round(time.Millisecond), peer.MachineFacts(p.dir))

	victim, survivors := p.servers[len(p.servers)-1], p.servers[:len(p.servers)-1]
	ids, err := p.nodeIDs(ctx, survivors[0])
	if err != nil {
		return err
	}
	gone := ids[victim.Addr()]
	byLeader, err := p.leaders(ctx, survivors[0])
	if err != nil {
		return err
	}
	owned := byLeader[gone]
	if len(owned) == 0 {
		return fmt.Errorf("node %d leads none of %d partitions", gone, total)
	}
	before, err := openLogs(ctx, p.servers...)
	if err != nil {
		return err
	}
	slots, err := p.slotsOf(ctx, gone)
	if err != nil {
		return err
	}
	fmt.Printf("node %d owns %d slots and leads %d of %d partitions; %d logs are open on all nodes\n", gone, slots, len(owned), total, before)
	if before, err = openLogs(ctx, survivors...); err != nil {
		return err
	}

	killed := time.Now()
	if err := victim.Kill(); err != nil {
		return err
	}
	since := func() time.Duration { return time.Since(killed).Round(time.Millisecond) }
	if err := until(ctx, "every slot is claimed", func(ctx context.Context) error {
		left, err := p.slotsOf(ctx, gone)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d slots are still node %d's", left, gone)
		}
		return err
	}); err != nil {
		return err
	}
	claimed := since()
	unused, err := openLogs(ctx, survivors...)
	if err != nil {
		return err
	}
	step := max(1, len(owned)/p.sample)
	var sample []partition
	for i := 0; i < len(owned) && len(sample) < p.sample; i += step {
		sample = append(sample, owned[i])
	}
	asked, err := p.use(ctx, survivors, sample, "ends are told", endsRequest, endsAnswered)
	if err != nil {
		return err
	}
	ends := asked.Sub(killed).Round(time.Millisecond)
	written, err := p.use(ctx, survivors, sample, "records are acknowledged", produceRequest, produceAnswered)
	if err != nil {
		return err
	}
	all := written.Sub(killed).Round(time.Millisecond)
	used, err := openLogs(ctx, survivors...)
	if err != nil {
		return err
	}
	if err := until(ctx, "every partition has a leader that runs", func(ctx context.Context) error {
		byLeader, err := p.leaders(ctx, survivors[0])
		if n := len(byLeader[gone]) + len(byLeader[-1]); err == nil && n > 0 {
			err = fmt.Errorf("%d partitions are led by node %d or nobody", n, gone)
		}
		return err
	}); err != nil {
		return err
	}
	fmt.Printf("after kill -9, with a lease of %s: all slots claimed after %s; ends of %d of its partitions told after %s, a record of each acknowledged after %s; metadata of all %d right after %s\n",
		p.lease, claimed, len(sample), ends, all, total, since())
	fmt.Printf("open logs on the others: %d before, %d when all was claimed, %d after %d were written\n", before, unused, used, len(sample))
	if unused != before {
		err = fmt.Errorf("%d logs were opened before anybody used one", unused-before)
	}
	if n := used - before; n > len(sample) {
		err = errors.Join(err, fmt.Errorf("%d logs were opened for the use of %d", n, len(sample)))
	}
	if bar := p.lease + p.bar; p.bar > 0 && all > bar {
		err = errors.Join(err, fmt.Errorf("it took %s, want %s at most", all, bar))
	}
	return err
}

// start runs everything below the servers, and these; each has its share of slots
// then. Clients reach each server by its own address.
func (p *plan) start(ctx context.Context) error {
	var err error
	p.bk, err = peer.NewBookKeeper(ctx, peer.BookKeeperOptions{Dir: filepath.Join(p.dir, "bookkeeper"), Bookies: bookies, EtcdMembers: p.etcds})
	if err != nil {
		return err
	}
	if err := p.bk.Start(ctx); err != nil {
		return err
	}
	for i := range p.nodes {
		name := fmt.Sprintf("quire-%d", i+1)
		others, err := peer.FreeAddress("127.0.0.1")
		if err != nil {
			return err
		}
		s, err := peer.NewQuire(ctx, peer.Options{
			Dir: filepath.Join(p.dir, name), Bin: p.bin,
			Overrides: append(peer.OnBookies(p.bk, [3]int{3, 3, 2}),
				"node.name="+name, "peer.listen="+others, fmt.Sprint("node.lease.ttl.ms=", p.lease.Milliseconds())),
		})
		if err != nil {
			return err
		}
		p.servers = append(p.servers, s)
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	return p.servers[0].NodeVerb(ctx, "await", "--nodes", fmt.Sprint(p.nodes))
}

func (p *plan) end() error {
	var failed []error
	for _, s := range p.servers {
		failed = append(failed, s.Kill())
	}
	if p.bk != nil {
		failed = append(failed, p.bk.Kill())
	}
	return errors.Join(failed...)
}

// create makes the topics.
func (p *plan) create(ctx context.Context) error {
	const version = 5
	conn, err := wire.Dial(ctx, p.servers[0].Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	for first := 0; first < p.topics; first += chunk {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = int32(callTimeout.Milliseconds())
		for i := first; i < min(first+chunk, p.topics); i++ {
			t := kmsg.NewCreateTopicsRequestTopic()
			t.Topic, t.NumPartitions, t.ReplicationFactor = topicName(i), int32(p.partitions), -1
			req.Topics = append(req.Topics, t)
		}
		resp, err := call(ctx, conn, req, version)
		if err != nil {
			return err
		}
		for _, t := range resp.(*kmsg.CreateTopicsResponse).Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
				return fmt.Errorf("create topic %s: %w", t.Topic, err)
			}
		}
	}
	return nil
}

func call(ctx context.Context, conn *wire.Conn, req kmsg.Request, version int16) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return conn.Call(ctx, req, version)
}

const metadataVersion = 4

// nodeIDs are the servers' ids by address, as one of them tells.
func (p *plan) nodeIDs(ctx context.Context, s *peer.Server) (map[string]int32, error) {
	conn, err := wire.Dial(ctx, s.Addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp, err := call(ctx, conn, req, metadataVersion)
	if err != nil {
		return nil, err
	}
	ids := map[string]int32{}
	for _, b := range resp.(*kmsg.MetadataResponse).Brokers {
		ids[fmt.Sprintf("%s:%d", b.Host, b.Port)] = b.NodeID
	}
	return ids, nil
}

// leaders asks a server for the leaders of all partitions. Those that it names none
// for are under -1.
func (p *plan) leaders(ctx context.Context, s *peer.Server) (map[int32][]partition, error) {
	conn, err := wire.Dial(ctx, s.Addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	byLeader := map[int32][]partition{}
	for first := 0; first < p.topics; first += chunk {
		req := kmsg.NewPtrMetadataRequest()
		for i := first; i < min(first+chunk, p.topics); i++ {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(topicName(i))
			req.Topics = append(req.Topics, t)
		}
		resp, err := call(ctx, conn, req, metadataVersion)
		if err != nil {
			return nil, err
		}
		for _, t := range resp.(*kmsg.MetadataResponse).Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
				return nil, fmt.Errorf("metadata of %s: %w", *t.Topic, err)
			}
			number, err := strconv.Atoi(strings.TrimPrefix(*t.Topic, "idle-"))
			if err != nil {
				return nil, err
			}
			for _, q := range t.Partitions {
				byLeader[q.Leader] = append(byLeader[q.Leader], partition{number, q.Partition})
			}
		}
	}
	return byLeader, nil
}

// slotsOf counts the slots that belong to a node.
func (p *plan) slotsOf(ctx context.Context, id int32) (int, error) {
	keys, err := p.bk.Etcd.Prefix(ctx, ownerKeys)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, kv := range keys {
		var owner struct{ Node int32 }
		if err := json.Unmarshal(kv.Value, &owner); err != nil {
			return 0, fmt.Errorf("%s: %w", kv.Key, err)
		}
		if owner.Node == id {
			n++
		}
	}
	return n, nil
}

// openLogs adds up the metric quire_open_logs.
func openLogs(ctx context.Context, servers ...*peer.Server) (int, error) {
	const metric = "quire_open_logs "
	sum := 0
	for _, s := range servers {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.AdminAddr()+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		found := false
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if value, ok := strings.CutPrefix(lines.Text(), metric); ok {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return 0, errors.Join(err, resp.Body.Close())
				}
				sum, found = sum+int(n), true
			}
		}
		if err := errors.Join(lines.Err(), resp.Body.Close()); err != nil {
			return 0, err
		}
		if !found {
			return 0, fmt.Errorf("%s has no metric %s", s.AdminAddr(), metric)
		}
	}
	return sum, nil
}

// until tries again and again, for limit at most.
func until(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("until %s: %w; last: %w", what, context.Cause(ctx), err)
		}
	}
}

// use sends requests for all partitions to those who lead them, as clients do, and
// again for those that were refused, until all are answered; it returns when that was.
func (p *plan) use(ctx context.Context, servers []*peer.Server, sample []partition, what string, request func([]partition) (kmsg.Request, int16), answered func(kmsg.Response) map[partition]error) (time.Time, error) {
	var mu sync.Mutex
	left := slices.Clone(sample)
	err := until(ctx, what, func(ctx context.Context) error {
		leaders, addrs, err := p.route(ctx, servers[0], left)
		if err != nil {
			return err
		}
		var calls sync.WaitGroup
		failed := fmt.Errorf("no leader of %v and %d others", left[0], len(left)-1)
		for id, led := range leaders {
			calls.Go(func() {
				answers, err := p.ask(ctx, addrs[id], led, request, answered)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
				}
				left = slices.DeleteFunc(left, func(q partition) bool {
					err, ok := answers[q]
					if err != nil {
						failed = err
					}
					return ok && err == nil
				})
			})
		}
		calls.Wait()
		if len(left) == 0 {
			return nil
		}
		return fmt.Errorf("%d of %d are left: %w", len(left), len(sample), failed)
	})
	return time.Now(), err
}

// route asks a server who leads partitions, and by which address.
func (p *plan) route(ctx context.Context, s *peer.Server, partitions []partition) (map[int32][]partition, map[int32]string, error) {
	conn, err := wire.Dial(ctx, s.Addr())
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	wanted := map[partition]bool{}
	for _, q := range partitions {
		wanted[q] = true
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topicName(q.topic))
		if n := len(req.Topics); n == 0 || *req.Topics[n-1].Topic != *t.Topic {
			req.Topics = append(req.Topics, t)
		}
	}
	answer, err := call(ctx, conn, req, metadataVersion)
	if err != nil {
		return nil, nil, err
	}
	resp := answer.(*kmsg.MetadataResponse)
	addrs := map[int32]string{}
	for _, b := range resp.Brokers {
		addrs[b.NodeID] = fmt.Sprintf("%s:%d", b.Host, b.Port)
	}
	leaders := map[int32][]partition{}
	for _, t := range resp.Topics {
		number, err := strconv.Atoi(strings.TrimPrefix(*t.Topic, "idle-"))
		if err != nil {
			return nil, nil, err
		}
		for _, q := range t.Partitions {
			if at := (partition{number, q.Partition}); wanted[at] && addrs[q.Leader] != "" {
				leaders[q.Leader] = append(leaders[q.Leader], at)
			}
		}
	}
	return leaders, addrs, nil
}

// ask sends one request for partitions to a server.
func (p *plan) ask(ctx context.Context, addr string, partitions []partition, request func([]partition) (kmsg.Request, int16), answered func(kmsg.Response) map[partition]error) (map[partition]error, error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	req, version := request(partitions)
	resp, err := call(ctx, conn, req, version)
	if err != nil {
		return nil, err
	}
	return answered(resp), nil
}

func endsRequest(partitions []partition) (kmsg.Request, int16) {
	const version, latest = 4, -1
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, q := range partitions {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topicName(q.topic)
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = q.number, latest, -1
		t.Partitions = append(t.Partitions, part)
		req.Topics = append(req.Topics, t)
	}
	return req, version
}

func endsAnswered(resp kmsg.Response) map[partition]error {
	answers := map[partition]error{}
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, q := range t.Partitions {
			answers[named(t.Topic, q.Partition)] = kerr.ErrorForCode(q.ErrorCode)
		}
	}
	return answers
}

func produceRequest(partitions []partition) (kmsg.Request, int16) {
	const version = 9
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, int32(callTimeout.Milliseconds())
	for _, q := range partitions {
		one := wire.Produce(topicName(q.topic), q.number, wire.Batch(-1, -1, -1, time.Now().UnixMilli(), "first"))
		req.Topics = append(req.Topics, one.Topics...)
	}
	return req, version
}

func produceAnswered(resp kmsg.Response) map[partition]error {
	answers := map[partition]error{}
	for _, t := range resp.(*kmsg.ProduceResponse).Topics {
		for _, q := range t.Partitions {
			answers[named(t.Topic, q.Partition)] = kerr.ErrorForCode(q.ErrorCode)
		}
	}
	return answers
}

// named is the partition of a topic's name; one that no topic here has is no partition.
func named(topic string, number int32) partition {
	i, err := strconv.Atoi(strings.TrimPrefix(topic, "idle-"))
	if err != nil {
		return partition{-1, -1}
	}
	return partition{i, number}
}
