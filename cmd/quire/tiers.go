package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// Values of storage.tier.
const (
	tierEmbedded   = "embedded"
	tierBookKeeper = "bookkeeper"
)

// Numbers of the tiers in the ids of ledgers. They are stored: never change one.
const (
	numberEmbedded   = 0
	numberBookKeeper = 1
)

// openTiers opens the tiers that ledgers lie in, and those that new ones go to. What
// the configuration and the data folder say nothing of is not opened.
func (n *node) openTiers(ctx context.Context, registry *prometheus.Registry) (ledger.Tier, error) {
	toBookies := n.config.str("storage.tier") == tierBookKeeper
	kept, err := n.folder.has(ledgersDir)
	if err != nil {
		return nil, err
	}
	tiers := make([]ledger.Tier, 2)
	if kept || !toBookies {
		if err := n.expectLedgers(ctx); err != nil {
			return nil, err
		}
		if err := n.openEmbedded(registry); err != nil {
			return nil, err
		}
		tiers[numberEmbedded] = n.embedded
	}
	if toBookies || n.config.str("bookkeeper.metadata.endpoints") != "" || n.config.str("bookkeeper.metadata.service.uri") != "" {
		if err := n.openBookKeeper(ctx, registry); err != nil {
			return nil, err
		}
		tiers[numberBookKeeper] = n.bookies
	}
	create := numberEmbedded
	if toBookies {
		create = numberBookKeeper
	}
	return storage.NewTiers(create, tiers...)
}

// expectLedgers refuses to begin a folder of ledgers where there was one: the records
// are somewhere else, a disk that is not mounted for one, or lost, and topics would come
// up without theirs.
func (n *node) expectLedgers(ctx context.Context) error {
	_, err := n.folder.readSmall(filepath.Join(ledgersDir, formatFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // there is one, or opening it tells what is wrong
	}
	lost, err := storage.CountLedgers(ctx, n.meta, n.prefix, numberEmbedded)
	if err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("data folder %s: nothing is in its %s, and the metadata know of %d ledgers there: put them back, from a backup if need be, or choose another data folder with --data-dir", n.folder.dir, ledgersDir, lost)
	}
	return nil
}

func (n *node) openEmbedded(registry *prometheus.Registry) (err error) {
	c := n.config
	n.embedded, err = embedded.Open(embedded.Config{
		Dir:              n.folder.path(ledgersDir),
		Logger:           n.log.Named("ledgers"),
		Registerer:       registry,
		OnFailure:        func(err error) { n.fail(explainFailure(n.folder.path(ledgersDir), err)) },
		MaxQueueBytes:    c.number("journal.queue.bytes"),
		JournalFileBytes: c.number("journal.file.bytes"),
		MaxJournalBytes:  c.number("journal.max.bytes"),
		MinFreeBytes:     c.number("disk.min.free.bytes"),
		MaxOpenFiles:     n.descriptors().ledgers,
	})
	if err != nil {
		return explainFolder(n.folder.path(ledgersDir), err)
	}
	n.onClose("ledgers", func(context.Context) error { return n.embedded.Close() })
	return nil
}

// checkBookies refuses bookies of another cluster than those of the nodes beside this one.
func (n *node) checkBookies(ctx context.Context, store metadata.Store) error {
	id, err := store.InstanceID(ctx)
	if err != nil {
		return explainBookies(n.config, err)
	}
	key := n.prefix + "bookies"
	for {
		kv, err := n.meta.Get(ctx, key)
		switch {
		case err == nil && string(kv.Value) == id:
			return nil
		case err == nil:
			return fmt.Errorf("bookies of the cluster in %s: they are of %s, and the records of this cluster lie on bookies of %s: check bookkeeper.metadata.endpoints and bookkeeper.metadata.service.uri", bookiesAt(n.config), id, kv.Value)
		case !errors.Is(err, meta.ErrNotFound):
			return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
		}
		_, _, err = n.meta.Txn(ctx, []meta.Cond{{Key: key}}, []meta.Op{meta.Put(key, []byte(id))})
		if err != nil && (!errors.Is(err, meta.ErrUnknownOutcome) || errors.Is(err, meta.ErrNoSpace) || ctx.Err() != nil) {
			return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
		}
	}
}

func (n *node) openBookKeeper(ctx context.Context, registry prometheus.Registerer) error {
	c := n.config
	secure, err := bookieTLS(c)
	if err != nil {
		return err
	}
	store, done, err := bookieMetadata(c, n.log)
	if err != nil {
		return err
	}
	n.onClose("bookies' metadata store", func(context.Context) error { return done() })
	if n.shared {
		if err := n.checkBookies(ctx, store); err != nil {
			return err
		}
	}
	n.bookies, err = bookkeeper.Open(ctx, bookkeeper.Config{
		Store:         store,
		Ensemble:      int(c.number("bookkeeper.ensemble")),
		WriteQuorum:   int(c.number("bookkeeper.write.quorum")),
		AckQuorum:     int(c.number("bookkeeper.ack.quorum")),
		MaxFrameBytes: int(c.number("bookkeeper.max.frame.bytes")),
		TLS:           secure,
		Housekeeper:   n.marksLedgers,
		Registerer:    registry,
		Logger:        n.log.Named("bookkeeper"),
	})
	if err != nil {
		return explainBookies(c, err)
	}
	n.onClose("bookies", func(context.Context) error { return n.bookies.Close() })
	return nil
}
