package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage"
)

type topicMigrateVerb struct {
	Topics []string `arg:"" name:"topic" help:"Names."`
	Admin  string   `default:"127.0.0.1:9644" placeholder:"HOST:PORT" help:"Admin listener of the server."`
}

// Run asks the server to move the topics, one after the other, and prints what it tells.
func (v *topicMigrateVerb) Run(p *process) error {
	var errs []error
	for _, name := range v.Topics {
		if err := v.migrate(p.ctx, p, name); err != nil {
			errs = append(errs, err)
		}
	}
	return joinLine(errs)
}

func (v *topicMigrateVerb) migrate(ctx context.Context, p *process, topic string) error {
	at := url.URL{Scheme: "http", Host: v.Admin, Path: "/topics/" + topic + "/migrate"}
	return adminDo(ctx, p, http.MethodPost, at, func(r *http.Response, heard func()) error {
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			heard()
			text, failed := strings.CutPrefix(lines.Text(), migrateFailed)
			if failed || r.StatusCode != http.StatusOK {
				return errors.New(text)
			}
			if text != "" {
				fmt.Fprintln(p.stdout, text)
			}
		}
		return lines.Err()
	})
}

// unwrapURL leaves out what the caller says better.
func unwrapURL(err error) error {
	if e := new(url.Error); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// migrateFailed begins the last line of an answer whose status was sent before it failed.
const migrateFailed = "error: "

// migrateAlive is how often an empty line says that a partition is still being moved.
const migrateAlive = adminPatience / 5

// migrateTopic answers POST /topics/{topic}/migrate: it moves the sealed ledgers of the topic
// to the tier of new ones, and tells of each partition when it is done.
func (n *node) migrateTopic(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("topic")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	t := n.coordinator.Topic(name)
	if t == nil {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "there is no topic %.249q\n", name)
		return
	}
	tick := time.NewTicker(migrateAlive)
	defer tick.Stop()
	for p := range t.Partitions {
		var moved int
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			moved, err = n.migratePartition(r.Context(), t, p)
		}()
		for moving := true; moving; {
			select {
			case <-done:
				moving = false
			case <-tick.C:
				fmt.Fprintln(w)
				_ = http.NewResponseController(w).Flush() // a client that is gone ends the context
			}
		}
		if err != nil {
			fmt.Fprintf(w, "%s%s partition %d: moved %d, then: %s\n", migrateFailed, name, p, moved, oneLine(err.Error()))
			return
		}
		fmt.Fprintf(w, "%s partition %d: %d ledgers moved\n", name, p, moved)
		_ = http.NewResponseController(w).Flush()
	}
}

func (n *node) migratePartition(ctx context.Context, t *coordinator.Topic, partition int32) (moved int, err error) {
	l, err := n.store.OpenLog(ctx, storage.LogID{Topic: t.ID, Partition: partition}, t.LogConfig)
	if err != nil {
		return 0, err
	}
	return l.Migrate(ctx)
}
