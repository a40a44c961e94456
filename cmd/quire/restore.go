package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// An etcd that was restored from a backup has forgotten what came after: ledgers that
// hold acknowledged records, epochs that clients have seen, ids that were given out.
// To go on as if nothing had happened would lose some of it without a word, so it is
// noticed and refused until the operator has decided:
//
//   - while a node runs, the store compares each answer with those before it
//     (etcd.ErrWentBack);
//   - over a node's restart, its data folder remembers how far etcd was (seen);
//   - a node that notices says so in etcd (restoreRecord), and so all others end
//     or do not start, those with new folders too;
//   - quire cluster bump-epochs writes the decision there.

// seenFile is what the data folder remembers of the etcd cluster: its id in hex, the
// newest revision told, the last decision, and this node's mark; decimal numbers.
const seenFile = "SEEN"

// seen is how far an etcd cluster was when this node looked last.
type seen struct {
	etcd.Position
	accepted int64 // restoreRecord.Accepted
	// mark is a number that this node counts up in etcd, key seen/{folder's id}. An etcd
	// restored with its revision raised (etcdutl's --bump-revision) has an old one.
	mark int64
}

func (s seen) String() string {
	return fmt.Sprintf("%x %d %d %d", s.Cluster, s.Revision, s.accepted, s.mark)
}

func parseSeen(text string) (s seen, err error) {
	n, err := fmt.Sscanf(text, "%x %d %d %d", &s.Cluster, &s.Revision, &s.accepted, &s.mark)
	if err == nil && n != 4 {
		err = errors.New("too short")
	}
	return s, err
}

// contradicts says what of before cannot have been if etcd is as now says, or "".
func (before seen) contradicts(now seen) string {
	switch {
	case now.accepted > before.accepted:
		return "" // the operator has looked at it since
	case now.accepted < before.accepted:
		return "the decision of " + stamp(before.accepted) + " about an earlier restore is missing"
	case now.Cluster != before.Cluster:
		return fmt.Sprintf("it is cluster %x, and was cluster %x", now.Cluster, before.Cluster)
	case now.Revision < before.Revision:
		return fmt.Sprintf("it is at revision %d, and was at %d", now.Revision, before.Revision)
	case now.mark < before.mark:
		return fmt.Sprintf("it has mark %d of this node, and had %d", now.mark, before.mark)
	}
	return ""
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// restoreRecord is the value of the key restore, JSON: what was noticed of a restored
// etcd and what the operator decided.
type restoreRecord struct {
	Version     int    `json:"v"`
	Accepted    int64  `json:"accepted,omitempty"`     // when the epochs were raised last, ms; grows
	Noticed     string `json:"noticed,omitempty"`      // what nobody has decided about; "": nothing
	KeepOrphans bool   `json:"keep_orphans,omitempty"` // ledgers that no log has are kept
	FirstEpoch  int32  `json:"first_epoch,omitempty"`  // of logs that were never written, as far as the metadata know
}

func restoreKey(prefix string) string      { return prefix + "restore" }
func seenKey(prefix, folder string) string { return prefix + "seen/" + folder }

// wentBack is what a node ends with.
func wentBack(at any, why string) error {
	return fmt.Errorf("etcd at %s was restored from a backup or is another one: %s: nothing is served before quire cluster bump-epochs has made the metadata safe to go on with", at, why)
}

// readRestore returns the record and its revision, 0 if there is none.
func readRestore(ctx context.Context, store meta.Store, prefix string) (r restoreRecord, at meta.Revision, err error) {
	kv, err := store.Get(ctx, restoreKey(prefix))
	if errors.Is(err, meta.ErrNotFound) {
		return restoreRecord{Version: 1}, 0, nil
	}
	if err != nil {
		return r, 0, err
	}
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return r, 0, fmt.Errorf("metadata key %s: %w", kv.Key, err)
	}
	return r, kv.Modified, nil
}

// writeRestore changes the record that had the revision at. False: it was changed meanwhile.
func writeRestore(ctx context.Context, store meta.Store, prefix string, r restoreRecord, at meta.Revision) (bool, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	_, ok, err := store.Txn(ctx, []meta.Cond{{Key: restoreKey(prefix), Modified: at}}, []meta.Op{meta.Put(restoreKey(prefix), value)})
	return ok, err
}

const (
	// restoreLookEvery is how often a node looks whether another one has noticed
	// that etcd was restored.
	restoreLookEvery = 5 * time.Second
	// seenEvery is how often the data folder takes note of how far etcd is.
	seenEvery = 30 * time.Second
)

// restoreWatch remembers how far etcd was, and ends the node when it is told that etcd
// went back.
type restoreWatch struct {
	n          *node
	firstEpoch int32 // restoreRecord.FirstEpoch
	// keepOrphans says that nobody may delete ledgers which no log has.
	keepOrphans atomic.Bool
	// last is what the folder remembers. It belongs to whoever opens, then to the
	// goroutine, then to Close.
	last seen
}

// openRestoreWatch refuses an etcd that has gone back since this folder saw it last.
func (n *node) openRestoreWatch(ctx context.Context) error {
	w := &restoreWatch{n: n}
	at := n.config.str("etcd.endpoints")
	before, known, err := n.folder.readSeen()
	if err != nil {
		return err
	}
	record, revision, err := readRestore(ctx, n.meta, n.prefix)
	if err != nil {
		return fmt.Errorf("etcd at %s: %w", at, err)
	}
	if record.Noticed != "" {
		return wentBack(at, record.Noticed)
	}
	now := seen{Position: n.meta.Position(), accepted: record.Accepted}
	if now.mark, err = w.readMark(ctx); err != nil {
		return fmt.Errorf("etcd at %s: %w", at, err)
	}
	if known {
		if why := before.contradicts(now); why != "" {
			record.Noticed = fmt.Sprintf("node %s noticed at %s: %s", n.name, time.Now().UTC().Format(time.RFC3339), why)
			if _, err := writeRestore(ctx, n.meta, n.prefix, record, revision); err != nil {
				n.log.Warn("the other nodes are not told that etcd was restored", zap.Error(err))
			}
			return wentBack(at, why)
		}
	}
	w.firstEpoch = record.FirstEpoch
	w.keepOrphans.Store(record.KeepOrphans)
	w.last = now
	if err := n.folder.writeSeen(now); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.follow(ctx)
	}()
	n.onClose("memory of etcd", func(context.Context) error {
		cancel()
		<-done
		return w.remember()
	})
	n.restore = w
	return nil
}

// firstEpoch is the leader epoch of logs that were never written.
func (n *node) firstEpoch() int32 {
	if n.restore == nil {
		return 0
	}
	return n.restore.firstEpoch
}

func (w *restoreWatch) readMark(ctx context.Context) (int64, error) {
	kv, err := w.n.meta.Get(ctx, seenKey(w.n.prefix, w.n.folderID))
	if errors.Is(err, meta.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	mark, err := strconv.ParseInt(string(kv.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("metadata key %s: %q is not a number", kv.Key, kv.Value)
	}
	return mark, nil
}

func (w *restoreWatch) follow(ctx context.Context) {
	tick := time.NewTicker(restoreLookEvery)
	defer tick.Stop()
	for remembered := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		record, _, err := readRestore(ctx, w.n.meta, w.n.prefix)
		switch {
		case err != nil:
			continue // those who need etcd say so
		case record.Noticed != "":
			w.n.fail(wentBack(w.n.config.str("etcd.endpoints"), record.Noticed))
			return
		case record.Accepted != w.last.accepted:
			w.n.fail(fmt.Errorf("epochs were raised at %s while this node ran: start it again", stamp(record.Accepted)))
			return
		}
		w.keepOrphans.Store(record.KeepOrphans)
		if time.Since(remembered) >= seenEvery {
			remembered = time.Now()
			if err := w.mark(ctx); err != nil && ctx.Err() == nil {
				w.n.log.Warn("how far etcd is was not written down", zap.Error(err))
			}
		}
	}
}

// mark counts this node's mark up in etcd, then in the folder: the folder's is never
// ahead. Nothing happens while nothing happens in etcd.
func (w *restoreWatch) mark(ctx context.Context) error {
	if w.n.meta.Position() == w.last.Position {
		return nil
	}
	mark := w.last.mark + 1
	if _, _, err := w.n.meta.Txn(ctx, nil, []meta.Op{meta.Put(seenKey(w.n.prefix, w.n.folderID), strconv.AppendInt(nil, mark, 10))}); err != nil {
		return err
	}
	w.last.mark = mark
	return w.remember()
}

// remember writes into the folder how far etcd is.
func (w *restoreWatch) remember() error {
	now := w.last
	now.Position = w.n.meta.Position()
	if err := w.n.folder.writeSeen(now); err != nil {
		return err
	}
	w.last = now
	return nil
}

// readSeen returns what the folder remembers of etcd, false if nothing.
func (f *folder) readSeen() (s seen, known bool, err error) {
	text, err := f.readSmall(seenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, explainFolder(f.dir, err)
	}
	if s, err = parseSeen(text); err != nil {
		return s, false, fmt.Errorf("data folder %s: its %s cannot be read (%q): remove the file if etcd was not restored from a backup", f.dir, seenFile, text)
	}
	return s, true, nil
}

func (f *folder) writeSeen(s seen) error {
	if err := f.replaceSmall(seenFile, s.String()); err != nil {
		return explainFolder(f.dir, err)
	}
	return nil
}
