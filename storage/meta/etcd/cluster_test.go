package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/meta/metatest"
)

// startMember starts an etcd with its gRPC service on a unix socket in dir: as
// far as clients can tell one of a cluster, with etcd's own limits.
func startMember(dir string) (*embed.Etcd, error) {
	c := embed.NewConfig()
	c.Dir, c.Name = filepath.Join(dir, "data"), "m"
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = "m=" + peer.String()
	c.LogLevel, c.LogOutputs = "fatal", []string{"/dev/null"}
	c.TickMs, c.ElectionMs = 50, 250
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	<-e.Server.ReadyNotify()
	return e, nil
}

// memberChild is a member to be killed.
func memberChild(dir string) error {
	if _, err := startMember(dir); err != nil {
		return err
	}
	fmt.Println("serving")
	untilEnd()
	return nil
}

func startMemberChild(t *testing.T, dir string) *child {
	t.Helper()
	c, line := startChild(t, "member", dir)
	if line != "serving" {
		t.Fatal(line)
	}
	return c
}

// patience bounds requests that must succeed, on any machine.
const patience = 2 * time.Minute

// openCluster opens the store of a member that is there; however short the time that
// its requests get, it waits for the member's first answer.
func openCluster(t *testing.T, c etcd.ClusterConfig) *etcd.Store {
	t.Helper()
	for {
		s, err := etcd.Open(t.Context(), c)
		switch {
		case err == nil:
			t.Cleanup(func() { closeStore(t, s) })
			return s
		case !errors.Is(err, meta.ErrUnavailable):
			t.Fatal(err)
		}
	}
}

// at is how the member in dir is reached.
func at(dir string, timeout time.Duration) etcd.ClusterConfig {
	return etcd.ClusterConfig{Endpoints: []string{"unix://" + filepath.Join(dir, "client.sock")}, RequestTimeout: timeout}
}

func TestCluster(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		dir := t.TempDir()
		m, err := startMember(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		s := openCluster(t, at(dir, patience))
		return metatest.Harness{Store: s, Compact: s.Compact}
	})
}

// While the cluster is away requests fail as such, a change was not executed,
// and a watch goes on where it was when the cluster is back.
func TestClusterAway(t *testing.T) {
	dir := t.TempDir()
	m := startMemberChild(t, dir)
	s := openCluster(t, at(dir, time.Second))
	// Whoever has a second only may wait in vain for a slow disk as well.
	rev, _, err := openCluster(t, at(dir, patience)).Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte("1"))})
	if err != nil {
		t.Fatal(err)
	}
	events := s.Watch(t.Context(), "a", rev)

	m.kill()
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("Get while the cluster is away: %v, want ErrUnavailable", err)
	}
	if _, err := s.List(t.Context(), "a", func(meta.KV) bool { return true }); !errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("List while the cluster is away: %v, want ErrUnavailable", err)
	}
	_, _, err = s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte("lost"))})
	if !errors.Is(err, meta.ErrUnavailable) && !errors.Is(err, meta.ErrUnknownOutcome) {
		t.Errorf("Txn while the cluster is away: %v, want ErrUnavailable or ErrUnknownOutcome", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.Txn(ctx, nil, []meta.Op{meta.Put("a", []byte("lost"))}); !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("Txn with an impatient context: %v, want its error or ErrUnavailable", err)
	}

	startMemberChild(t, dir)
	var next, unsure meta.Revision
	for next == 0 {
		rev, ok, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", []byte("2"))})
		switch {
		case err == nil && ok:
			next = rev
		case errors.Is(err, meta.ErrUnknownOutcome):
			unsure++ // it took too long, and is executed perhaps
		case !errors.Is(err, meta.ErrUnavailable):
			t.Fatalf("Txn when the cluster is back: %v", err)
		}
	}
	if next <= rev || next > rev+1+unsure {
		t.Errorf("the next change is at %d after %d: something was executed in between", next, rev)
	}
	select {
	case e := <-events:
		if e.Revision <= rev || e.Revision > next || string(e.Events[0].Value) != "2" {
			t.Errorf("watch says %+v, want revision %d", e, next)
		}
	case <-time.After(patience):
		t.Error("watch says nothing")
	}
}

func TestClusterOpenErrors(t *testing.T) {
	if _, err := etcd.Open(t.Context(), etcd.ClusterConfig{}); err == nil {
		t.Error("opened without endpoints")
	}
	nobody := etcd.ClusterConfig{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "none.sock")}, RequestTimeout: time.Second}
	if s, err := etcd.Open(t.Context(), nobody); !errors.Is(err, meta.ErrUnavailable) {
		if err == nil {
			s.Close()
		}
		t.Errorf("Open with nobody there: %v, want ErrUnavailable", err)
	}
}

// With authentication a token lasts for as long as etcd likes. A watch that begins, or
// begins again, after that is permitted all the same.
func TestWatchAfterTokenExpired(t *testing.T) {
	dir := t.TempDir()
	m, err := startMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	config := at(dir, patience)
	admin, err := config.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for _, step := range []func() error{
		func() error { _, err := admin.UserAdd(t.Context(), "root", "secret"); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := admin.AuthEnable(t.Context()); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	config.Username, config.Password = "root", "secret"
	s, err := etcd.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	put := func(key string) meta.Revision {
		t.Helper()
		rev, ok, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put(key, nil)})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return rev
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	old := s.Watch(ctx, "old", 0) // and stays, with its stream
	put("old")
	if e := <-old; e.Err != nil || e.Revision == 0 {
		t.Fatalf("a watch brings %+v", e)
	}
	// A password that is set anew makes etcd forget the user's tokens.
	other := config
	changer, err := other.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer changer.Close()
	if _, err := changer.UserChangePassword(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	rev := put("new") - 1
	select {
	case e := <-s.Watch(ctx, "new", rev):
		if e.Err != nil || e.Revision != rev+1 {
			t.Errorf("the watch brings %+v, want revision %d", e, rev+1)
		}
	case <-ctx.Done():
		t.Error("a watch that began after the token had expired brings nothing")
	}
}
