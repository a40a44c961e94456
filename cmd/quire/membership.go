package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage/meta"
)

// idFile names a data folder whose metadata lies elsewhere: the cluster's key
// folder names it too. Metadata that meets the wrong records would take them
// for rubbish, and records without theirs cannot be read.
const idFile = "ID"

// withoutRecords ends the value of the cluster's key folder if no folder has records.
const withoutRecords = ", without records"

// binding is the value of the cluster's key folder: the id of the one folder that has
// the cluster's records, or of the first one where all records lie on bookies.
type binding struct {
	id     string
	where  string // the folder, for people
	shared bool   // no folder has records: any number of nodes may serve
}

func (b binding) String() string {
	text := b.id + " " + b.where
	if b.shared {
		text += withoutRecords
	}
	return text
}

func parseBinding(text string) (b binding) {
	b.id, b.where, _ = strings.Cut(text, " ")
	b.where, b.shared = strings.CutSuffix(b.where, withoutRecords)
	return b
}

func (n *node) folderKey() string { return n.prefix + "folder" }

// bindFolder holds the data folders and the metadata in a cluster together. The first
// start writes the folder's name into both, the folder's first.
//
// Records that lie in a folder are one node's, who serves alone. Where all lie on
// bookies any number of nodes serve, each with a folder of its own that holds no
// records. A folder without records may take the place of another at any time.
func (n *node) bindFolder(ctx context.Context) error {
	if err := n.readFolderID(); err != nil {
		return err
	}
	used, err := n.folder.has(ledgersDir)
	if err != nil {
		return err
	}
	n.name = cmp.Or(n.config.str("node.name"), n.folderID)
	want := binding{id: n.folderID, where: n.folder.describe(), shared: !used && n.config.str("storage.tier") == tierBookKeeper}
	at := n.config.str("etcd.endpoints")
	for {
		kv, err := n.meta.Get(ctx, n.folderKey())
		if errors.Is(err, meta.ErrNotFound) {
			if used {
				return fmt.Errorf("data folder %s holds records and etcd at %s knows nothing of them: restore etcd from a backup, or choose another folder with --data-dir", n.folder.dir, at)
			}
		} else if err != nil {
			return fmt.Errorf("etcd at %s: %w", at, err)
		} else {
			bound := parseBinding(string(kv.Value))
			switch {
			case bound == want, bound.shared && want.shared:
				n.shared = want.shared
				return n.keepID(ctx, bound)
			case bound.id == want.id:
				// The same folder: moved, emptied, or to take records again, which
				// the nodes beside it would know nothing of.
				if err := n.awaitCompany(ctx); err != nil {
					return err
				}
			default:
				return n.explainMix(bound, used)
			}
		}
		if err := n.writeFolder(ctx, meta.Cond{Key: n.folderKey(), Modified: kv.Modified}, want); err != nil {
			return err
		}
	}
}

// onlyNode is the name that the only node of a cluster has where folders have none, and
// had everywhere before there were clusters of several.
const onlyNode = "quire"

// keepID lets the only node of a cluster keep the id that it had as such.
func (n *node) keepID(ctx context.Context, bound binding) error {
	n.keepsID = bound.id == n.folderID
	if !n.keepsID {
		return nil
	}
	return coordinator.RenameNode(ctx, n.meta, n.prefix, onlyNode, n.name)
}

// companyPatience is how much longer than a lease a node that was killed may be on the list:
// a busy etcd ends leases late.
const companyPatience = 5 * time.Second

// awaitCompany waits until every node that is registered is one that this node can serve
// together with. One that was killed is registered for the time of its lease; one that is
// only cut off gets nothing acknowledged any more when its ledgers are opened here.
func (n *node) awaitCompany(ctx context.Context) error {
	var giveUp time.Time
	for {
		live, err := coordinator.LiveNodes(ctx, n.meta, n.prefix)
		if err != nil {
			return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
		}
		i := slices.IndexFunc(live, func(other coordinator.Node) bool { return n.objection(other) != nil })
		if i < 0 {
			return nil
		}
		if giveUp.IsZero() {
			lease := cmp.Or(live[i].LeaseTTL, n.config.millis("node.lease.ttl.ms"))
			giveUp = time.Now().Add(lease + companyPatience)
			n.log.Info("waiting for another node to stop", zap.Int32("node", live[i].ID), zap.String("name", live[i].Name), zap.String("folder", live[i].Folder))
		}
		if time.Now().After(giveUp) {
			return n.objection(live[i])
		}
		select {
		case <-time.After(companyLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// companyLook is how often the list of nodes is looked at meanwhile.
const companyLook = 250 * time.Millisecond

// objection says why this node cannot serve beside another, nil if it can.
func (n *node) objection(other coordinator.Node) error {
	at := n.config.str("etcd.endpoints")
	where := ""
	if other.Folder != "" {
		where = ", its data folder " + other.Folder
	}
	missing := ""
	switch {
	case other.Name == n.name, other.Name == onlyNode && other.Folder == "" && n.keepsID:
		return nil // this node's process before this one
	case !n.shared:
		return fmt.Errorf("node %d (%s) serves with etcd at %s%s, and this node would keep records in its data folder, which only one that serves alone can: stop it first, or set storage.tier to %s", other.ID, other.Name, at, where, tierBookKeeper)
	case !hasPeers(n.config):
		missing = "this node"
	case other.Peer.Host == "":
		missing = "that node"
	default:
		return nil
	}
	return fmt.Errorf("node %d (%s) serves with etcd at %s%s, and %s has no peer.listen: stop it first, or set peer.listen on all nodes, since they forward requests to each other", other.ID, other.Name, at, where, missing)
}

// explainMix says why this node cannot serve a cluster whose key folder is bound.
func (n *node) explainMix(bound binding, used bool) error {
	at := n.config.str("etcd.endpoints")
	toBookies := n.config.str("storage.tier") == tierBookKeeper
	switch {
	case bound.shared && used:
		return fmt.Errorf("data folder %s holds records that the cluster with etcd at %s, whose records all lie on bookies, knows nothing of: choose another folder with --data-dir, or other etcd.endpoints", n.folder.dir, at)
	case bound.shared:
		return fmt.Errorf("the records of the cluster with etcd at %s lie on bookies, and this node would keep some in its data folder: set storage.tier to %s, or choose other etcd.endpoints", at, tierBookKeeper)
	case toBookies && !used:
		return fmt.Errorf("etcd at %s keeps the metadata of the records in another data folder, %s: that node serves alone until all of them lie on bookies (there: quire topic migrate, then a start without its folder %s); else use that folder with --data-dir, or other etcd.endpoints", at, bound.where, ledgersDir)
	}
	return fmt.Errorf("etcd at %s keeps the metadata of the records in another data folder, %s: use that one with --data-dir, or other etcd.endpoints", at, bound.where)
}

// confirmFolder looks again once this node is on the list of nodes: of two that start at
// the same time and cannot serve together at least one sees the other.
func (n *node) confirmFolder(ctx context.Context) error {
	at := n.config.str("etcd.endpoints")
	kv, err := n.meta.Get(ctx, n.folderKey())
	if err != nil {
		return fmt.Errorf("etcd at %s: %w", at, err)
	}
	bound := parseBinding(string(kv.Value))
	switch {
	case n.shared && !bound.shared:
		return n.explainMix(bound, false)
	case !n.shared && bound.id != n.folderID:
		return n.explainMix(bound, true)
	}
	for _, other := range n.coordinator.Nodes() {
		if err := n.objection(other); err != nil {
			return err
		}
	}
	return nil
}

// readFolderID reads the name of the data folder, or gives it one.
func (n *node) readFolderID() error {
	id, err := n.folder.readSmall(idFile)
	if errors.Is(err, fs.ErrNotExist) {
		var random [16]byte
		rand.Read(random[:]) // never fails
		id = base64.RawURLEncoding.EncodeToString(random[:])
		err = n.folder.replaceSmall(idFile, id)
	}
	if err != nil {
		return explainFolder(n.folder.dir, err)
	}
	n.folderID = id
	return nil
}

// describe says where the folder is, for people on other machines.
func (f *folder) describe() string {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	return f.dir + " of " + host
}

// writeFolder writes the cluster's key folder if it is still as cond says. It returns nil
// too if it is not, or nobody knows: the caller reads it.
func (n *node) writeFolder(ctx context.Context, cond meta.Cond, b binding) error {
	_, _, err := n.meta.Txn(ctx, []meta.Cond{cond}, []meta.Op{meta.Put(cond.Key, []byte(b.String()))})
	if err != nil && (!errors.Is(err, meta.ErrUnknownOutcome) || ctx.Err() != nil || errors.Is(err, meta.ErrNoSpace)) {
		return fmt.Errorf("etcd at %s: %w", n.config.str("etcd.endpoints"), err)
	}
	return nil
}
