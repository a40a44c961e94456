package main

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage"
)

// inProcess starts a node in this process.
func inProcess(t *testing.T, dir string) *node {
	t.Helper()
	c, err := loadConfig("", nil, []override{
		{"data.dir", dir, "test"}, {"listeners", "PLAINTEXT://127.0.0.1:0", "test"}, {"admin.listen", "", "test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := startNode(context.Background(), c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) unopened() (ids []storage.LogID) {
	n.store.Unopened(func(id storage.LogID) bool {
		ids = append(ids, id)
		return true
	})
	return ids
}

// TestSweep: after a restart nobody has asked for a log yet. The sweep opens
// it, so that retention sees it, and deletes that of a topic whose deletion was
// cut short.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	n := inProcess(t, dir)
	client, err := kgo.NewClient(kgo.SeedBrokers(n.bound[0].Address()), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"kept", "gone"} {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	kept := storage.LogID{Topic: n.coordinator.Topic("kept").ID}
	gone := storage.LogID{Topic: n.coordinator.Topic("gone").ID}
	if err := n.coordinator.DeleteTopic(ctx, "gone", gone.Topic); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	n = inProcess(t, dir)
	if ids := n.unopened(); len(ids) != 2 {
		t.Fatalf("unopened after the restart: %v", ids)
	}
	n.sweep(ctx)
	if ids := n.unopened(); len(ids) != 0 {
		t.Errorf("unopened after the sweep: %v", ids)
	}
	if n.store.Log(kept) == nil || n.store.Log(gone) != nil {
		t.Errorf("open: kept %v, gone %v", n.store.Log(kept) != nil, n.store.Log(gone) != nil)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	n = inProcess(t, dir)
	if ids := n.unopened(); len(ids) != 1 || ids[0] != kept {
		t.Errorf("after another restart: %v", ids)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
}
