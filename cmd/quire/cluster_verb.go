package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// clusterVerb works on a cluster's metadata in etcd past any node.
type clusterVerb struct {
	Show           clusterShowVerb    `cmd:"" help:"Say what etcd knows of the cluster, and whether it was restored from a backup."`
	BumpEpochs     bumpEpochsVerb     `cmd:"" help:"Make metadata that were restored from a backup safe to go on with; only says what is there unless told to --execute."`
	ReleaseOrphans releaseOrphansVerb `cmd:"" help:"Let ledgers be deleted again that no log has: those written after the backup, with their records."`
}

// metadataFlags say where the metadata are: in the configuration that the nodes have, or by --etcd.
type metadataFlags struct {
	Etcd     string   `placeholder:"URL,…" help:"Members of the etcd cluster. Default: etcd.endpoints of the configuration."`
	Config   string   `placeholder:"FILE" help:"YAML file with the configuration ($$${config_env})."`
	Override []string `placeholder:"KEY=VALUE" sep:"none" help:"Set any key of the configuration; repeatable."`
}

// metadata opens the metadata store.
func (f *metadataFlags) metadata(p *process, use func(c *config, s *etcd.Store) error) error {
	flags := configFlags{Config: f.Config, Override: f.Override}
	if f.Etcd != "" {
		flags.Override = append(flags.Override, "etcd.endpoints="+f.Etcd)
	}
	c, err := flags.load(p)
	if err != nil {
		return err
	}
	endpoints := splitList(c.str("etcd.endpoints"))
	if len(endpoints) == 0 {
		return errors.New("nothing says where the metadata are: give --etcd, or the nodes' --config")
	}
	cluster, err := etcdCluster(c, endpoints, zap.NewNop())
	if err != nil {
		return err
	}
	s, err := etcd.Open(p.ctx, cluster)
	if err != nil {
		return fmt.Errorf("%w: check that it runs, and --etcd or the configuration", err)
	}
	return errors.Join(use(c, s), s.Close())
}

type clusterShowVerb struct {
	metadataFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// clusterReport is what etcd knows of a cluster.
type clusterReport struct {
	Cluster      string   `json:"cluster"`
	FeatureLevel string   `json:"featureLevel"`
	Revision     int64    `json:"etcdRevision"`
	EtcdCluster  string   `json:"etcdCluster"`
	Folder       string   `json:"folder"`
	Nodes        []string `json:"nodes"` // that are live: id (name)
	Restored     string   `json:"restored,omitempty"`
	EpochsRaised string   `json:"epochsRaised,omitempty"`
	KeepOrphans  bool     `json:"keepOrphans"`
}

func (v *clusterShowVerb) Run(p *process) error {
	return v.metadata(p, func(c *config, s *etcd.Store) error {
		prefix := clusterPrefix(c)
		r := clusterReport{FeatureLevel: "1"}
		for key, to := range map[string]*string{"cluster": &r.Cluster, "level": &r.FeatureLevel, "folder": &r.Folder} {
			kv, err := s.Get(p.ctx, prefix+key)
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			if err == nil {
				*to = string(kv.Value)
			}
		}
		if r.Cluster == "" {
			return fmt.Errorf("etcd at %s knows of no cluster called %s: check --etcd and cluster.name", c.str("etcd.endpoints"), c.str("cluster.name"))
		}
		r.Folder = parseBinding(r.Folder).describe()
		record, _, err := readRestore(p.ctx, s, prefix)
		if err != nil {
			return err
		}
		live, err := coordinator.LiveNodes(p.ctx, s, prefix)
		if err != nil {
			return err
		}
		r.Nodes = nodeNames(live)
		r.Restored, r.KeepOrphans = record.Noticed, record.KeepOrphans
		if record.Accepted != 0 {
			r.EpochsRaised = stamp(record.Accepted)
		}
		at := s.Position()
		r.Revision, r.EtcdCluster = int64(at.Revision), fmt.Sprintf("%x", at.Cluster)
		if v.JSON {
			return printJSON(p.stdout, r)
		}
		w := newTable(p.stdout, "CLUSTER", r.Cluster)
		w.row("feature level", r.FeatureLevel)
		w.row("etcd cluster", r.EtcdCluster)
		w.row("etcd revision", r.Revision)
		w.row("records", r.Folder)
		w.row("live nodes", strings.Join(r.Nodes, ", "))
		w.row("restored", r.Restored)
		w.row("epochs raised", r.EpochsRaised)
		w.row("orphans", map[bool]string{true: "kept until quire cluster release-orphans", false: "deleted"}[r.KeepOrphans])
		return w.Flush()
	})
}

// describe says for people where the records are.
func (b binding) describe() string {
	if b.shared {
		return "on bookies"
	}
	return "in " + b.where
}

func nodeNames(nodes []coordinator.Node) []string {
	all := []string{}
	for _, n := range nodes {
		all = append(all, fmt.Sprintf("%d (%s)", n.ID, n.Name))
	}
	return all
}

// epochStep is how far leader and slot epochs go forward over a restore, and blocks of
// producer ids: more than anything can have come to since a backup.
const epochStep = 1_000_000

type bumpEpochsVerb struct {
	metadataFlags
	Execute bool          `help:"Do it. All nodes must be stopped."`
	Wait    time.Duration `default:"70s" help:"Time to wait for the leases of nodes that the backup takes for live (${default})."`
}

func (v *bumpEpochsVerb) Run(p *process) error {
	return v.metadata(p, func(c *config, s *etcd.Store) error {
		prefix := clusterPrefix(c)
		record, _, err := readRestore(p.ctx, s, prefix)
		if err != nil {
			return err
		}
		if _, err := s.Get(p.ctx, prefix+"cluster"); err != nil {
			return fmt.Errorf("etcd at %s: cluster %s: %w", c.str("etcd.endpoints"), c.str("cluster.name"), err)
		}
		if !v.Execute {
			what := "no node has noticed that it was restored"
			if record.Noticed != "" {
				what = record.Noticed
			}
			_, err := fmt.Fprintf(p.stdout, "cluster %s in etcd at %s: %s\nWith --execute, and all nodes stopped: leader epochs, slot epochs and blocks of producer ids go forward by %d,\nledger ids go on where none were given out, and ledgers that no log has are kept until quire cluster release-orphans.\n",
				c.str("cluster.name"), c.str("etcd.endpoints"), what, epochStep)
			return err
		}
		if err := awaitNobody(p, s, prefix, v.Wait); err != nil {
			return err
		}
		if err := skipLedgerIDs(p.ctx, c); err != nil {
			return err
		}
		if err := coordinator.RaiseEpochs(p.ctx, s, prefix, epochStep); err != nil {
			return err
		}
		logs, err := storage.RaiseEpochs(p.ctx, s, prefix, epochStep)
		if err != nil {
			return err
		}
		// The decision comes last: until it is there no node starts.
		for {
			record, at, err := readRestore(p.ctx, s, prefix)
			if err != nil {
				return err
			}
			record.Accepted = max(time.Now().UnixMilli(), record.Accepted+1)
			record.Noticed, record.KeepOrphans = "", true
			record.FirstEpoch += epochStep
			ok, err := writeRestore(p.ctx, s, prefix, record, at)
			if err != nil {
				return err
			}
			if ok {
				break
			}
		}
		_, err = fmt.Fprintf(p.stdout, "the epochs of %d logs and of all slots are raised by %d; nodes can start\n", logs, epochStep)
		return err
	})
}

// awaitNobody waits until no node is registered: after a restore leases run anew.
func awaitNobody(p *process, s meta.Store, prefix string, wait time.Duration) error {
	giveUp := time.Now().Add(wait)
	for {
		live, err := coordinator.LiveNodes(p.ctx, s, prefix)
		if err != nil {
			return err
		}
		if len(live) == 0 {
			return nil
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("nodes are live: %s: stop them first", strings.Join(nodeNames(live), ", "))
		}
		fmt.Fprintf(p.stderr, "waiting for the leases of %s\n", strings.Join(nodeNames(live), ", "))
		select {
		case <-time.After(time.Second):
		case <-p.ctx.Done():
			return errInterrupted
		}
	}
}

// skipLedgerIDs keeps new ledgers on bookies from ids that were given out after the backup.
func skipLedgerIDs(ctx context.Context, c *config) error {
	store, done, err := bookieMetadata(c, zap.NewNop())
	if err != nil {
		return err
	}
	counters, ours := store.(interface {
		SkipIDs(context.Context, time.Time) error
	})
	if !ours {
		return done() // no backup of etcd has them
	}
	_, err = store.InstanceID(ctx)
	if err == nil {
		err = counters.SkipIDs(ctx, time.Now())
	} else if errors.Is(err, metadata.ErrNotInitialised) {
		err = nil // there are no bookies
	}
	return errors.Join(err, done())
}

type releaseOrphansVerb struct {
	metadataFlags
}

func (v *releaseOrphansVerb) Run(p *process) error {
	return v.metadata(p, func(c *config, s *etcd.Store) error {
		prefix := clusterPrefix(c)
		for {
			record, at, err := readRestore(p.ctx, s, prefix)
			if err != nil {
				return err
			}
			if record.Noticed != "" {
				return errors.New("nobody has decided yet what to do with the restored metadata: see quire cluster bump-epochs")
			}
			if !record.KeepOrphans {
				_, err := fmt.Fprintln(p.stdout, "ledgers that no log has are deleted already")
				return err
			}
			record.KeepOrphans = false
			ok, err := writeRestore(p.ctx, s, prefix, record, at)
			if err != nil {
				return err
			}
			if ok {
				_, err := fmt.Fprintln(p.stdout, "ledgers that no log has are deleted from now on")
				return err
			}
		}
	})
}
