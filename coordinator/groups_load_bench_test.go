package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// BenchmarkLoad starts a node that comes to own all slots, with 5,000 groups in an
// embedded etcd. open-ms is the time until it owns them, load-ms that from there until
// the last group can be used.
func BenchmarkLoad(b *testing.B) {
	const groups = 5000
	s, err := etcd.OpenEmbedded(b.Context(), etcd.EmbeddedConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	start := func() *coordinator.Coordinator {
		c, err := coordinator.Open(b.Context(), coordinator.Config{Meta: s, Prefix: "quire/test/", NodeName: "n", Node: coordinator.Node{ID: -1}})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	loaded := func(c *coordinator.Coordinator) {
		if err := c.Groups().AwaitLoaded(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	c := start()
	loaded(c)
	topics, errs := c.CreateTopics(b.Context(), []coordinator.NewTopic{{Name: "t", Partitions: 1, ReplicationFactor: 1}}, false)
	if errs[0] != nil {
		b.Fatal(errs[0])
	}
	answers := make(chan error, groups)
	for i := range groups {
		c.Groups().Commit(fmt.Sprint("g", i), &nobody, []coordinator.NewCommit{{
			Partition: offsets.Partition{Topic: topics[0].ID}, Offset: 7, CommitTime: -1, Retention: -1,
		}}, nil, func(err error) { answers <- err })
	}
	for range groups {
		if err := <-answers; err != nil {
			b.Fatal(err)
		}
	}
	var opening, loading time.Duration
	for b.Loop() {
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		c = start()
		opened := time.Now()
		loaded(c)
		opening += opened.Sub(began)
		loading += time.Since(opened)
	}
	c.Close()
	b.ReportMetric(float64(opening.Milliseconds())/float64(b.N), "open-ms")
	b.ReportMetric(float64(loading.Milliseconds())/float64(b.N), "load-ms")
}
