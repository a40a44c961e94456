package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/ledger"
)

// The ledger verbs look at the ledgers of a BookKeeper cluster past any server.
// They change nothing: no ledger is fenced or closed by them.
type ledgerVerb struct {
	List   ledgerListVerb   `cmd:"" help:"List the ledgers on bookies."`
	Show   ledgerShowVerb   `cmd:"" help:"Show the metadata of ledgers."`
	Read   ledgerReadVerb   `cmd:"" help:"Say what the entries of a ledger hold."`
	Verify ledgerVerifyVerb `cmd:"" help:"Read every copy of every entry, and name those that are missing or damaged."`
}

// bookieFlags say where the bookies are: in the configuration that the server has, or by --etcd.
type bookieFlags struct {
	Etcd     string   `placeholder:"URL,…" help:"Members of the etcd cluster that the bookies register in. Default: as in the configuration."`
	Config   string   `placeholder:"FILE" help:"YAML file with the configuration ($$${config_env})."`
	Override []string `placeholder:"KEY=VALUE" sep:"none" help:"Set any key of the configuration; repeatable."`
}

// bookies opens the tier for looking at it.
func (f *bookieFlags) bookies(p *process, use func(*bookkeeper.Tier) error) error {
	flags := configFlags{Config: f.Config, Override: f.Override}
	if f.Etcd != "" {
		flags.Override = append(flags.Override, "bookkeeper.metadata.endpoints="+f.Etcd, "bookkeeper.metadata.service.uri=")
	}
	c, err := flags.load(p)
	if err != nil {
		return err
	}
	if !bookiesAt(c).set() {
		return errors.New("nothing says where the bookies register: give --etcd, or the server's --config")
	}
	secure, err := bookieTLS(c)
	if err != nil {
		return err
	}
	store, done, err := bookieMetadata(c, zap.NewNop())
	if err != nil {
		return err
	}
	tier, err := bookkeeper.Open(p.ctx, bookkeeper.Config{
		Store: store, Ensemble: 1, WriteQuorum: 1, AckQuorum: 1, TLS: secure,
		MaxFrameBytes: int(c.number("bookkeeper.max.frame.bytes")), JanitorInterval: -1,
	})
	if err != nil {
		return errors.Join(explainBookies(c, err), done())
	}
	return errors.Join(use(tier), tier.Close(), done())
}

type ledgerListVerb struct {
	bookieFlags
	All bool `help:"Also ledgers that other programs wrote."`
}

func (v *ledgerListVerb) Run(p *process) error {
	return v.bookies(p, func(t *bookkeeper.Tier) error {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "LEDGER\tSTATE\tQUORUMS\tLAST ENTRY\tBYTES\tLOG\tBOOKIES")
		err := t.Metadatas(p.ctx, func(l metadata.Listed) bool {
			if l.Err != nil {
				fmt.Fprintf(w, "%d\t%s\n", l.ID, oneLine(l.Err.Error()))
				return true
			}
			m := l.Ledger
			if !v.All && string(m.Custom["application"]) != "quire" {
				return true
			}
			last, bytes := "-", "-"
			if m.State == metadata.Closed {
				last, bytes = fmt.Sprint(m.LastEntry), fmt.Sprint(m.Length)
			}
			fmt.Fprintf(w, "%d\t%s\t%d/%d/%d\t%s\t%s\t%s\t%s\n", l.ID, m.State, m.Ensemble, m.WriteQuorum, m.AckQuorum,
				last, bytes, logName(m), joinBookies(m.Last().Bookies))
			return true
		})
		return errors.Join(err, w.Flush())
	})
}

// logName is the partition that a ledger of ours belongs to, by the topic's name if the
// ledger has it.
func logName(m *metadata.Ledger) string {
	if topic := m.Custom["topic"]; len(topic) > 0 {
		return string(topic) + "/" + string(m.Custom["partition"])
	}
	return string(m.Custom["log"])
}

func joinBookies(ids []metadata.BookieID) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = string(id)
	}
	return strings.Join(all, ",")
}

type ledgerShowVerb struct {
	bookieFlags
	Ledgers []int64 `arg:"" name:"ledger" help:"Ids."`
}

func (v *ledgerShowVerb) Run(p *process) error {
	return v.bookies(p, func(t *bookkeeper.Tier) error {
		var errs []error
		for _, id := range v.Ledgers {
			m, err := t.Metadata(p.ctx, ledger.ID(id))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			v.print(p, id, m)
		}
		return joinLine(errs)
	})
}

func (v *ledgerShowVerb) print(p *process, id int64, m *metadata.Ledger) {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("ledger", id)
	row("state", m.State)
	row("ensemble", m.Ensemble)
	row("write quorum", m.WriteQuorum)
	row("ack quorum", m.AckQuorum)
	row("digest", m.Digest)
	if m.State == metadata.Closed {
		row("last entry", m.LastEntry)
		row("bytes", m.Length)
	}
	for _, s := range m.Segments {
		row(fmt.Sprintf("from entry %d", s.First), joinBookies(s.Bookies))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Custom)) {
		row(name, fmt.Sprintf("%.200q", m.Custom[name]))
	}
	_ = w.Flush()
}

type ledgerReadVerb struct {
	bookieFlags
	Ledger int64 `arg:"" help:"Id."`
	From   int64 `default:"0" help:"First entry."`
	Count  int64 `default:"-1" help:"Entries; -1 is all."`
	Raw    bool  `help:"Print the bytes of each entry in hex."`
}

// readChunkBytes is read from bookies at one time.
const readChunkBytes = 1 << 20

func (v *ledgerReadVerb) Run(p *process) error {
	return v.bookies(p, func(t *bookkeeper.Tier) error {
		r, err := t.Open(p.ctx, ledger.ID(v.Ledger))
		if err != nil {
			return err
		}
		defer r.Close()
		last, _ := r.Last()
		if v.Count >= 0 {
			last = min(last, v.From+v.Count-1)
		}
		for entry := v.From; entry <= last; {
			es, err := r.Read(p.ctx, entry, last, readChunkBytes)
			if err != nil {
				return err
			}
			if len(es.Data) == 0 {
				break
			}
			for i, data := range es.Data {
				v.print(p, entry+int64(i), data)
			}
			entry += int64(len(es.Data))
			es.Release()
		}
		return nil
	})
}

func (v *ledgerReadVerb) print(p *process, entry int64, data []byte) {
	if v.Raw {
		fmt.Fprintf(p.stdout, "%d\t%x\n", entry, data)
		return
	}
	what, err := storage.DescribeEntry(data)
	if err != nil {
		what = oneLine(err.Error())
	}
	fmt.Fprintf(p.stdout, "%d\t%d bytes\t%s\n", entry, len(data), what)
}

type ledgerVerifyVerb struct {
	bookieFlags
	Ledgers []int64 `arg:"" optional:"" name:"ledger" help:"Ids. Default: all that quire wrote."`
}

func (v *ledgerVerifyVerb) Run(p *process) error {
	return v.bookies(p, func(t *bookkeeper.Tier) error {
		ids := v.Ledgers
		if len(ids) == 0 {
			err := t.Metadatas(p.ctx, func(l metadata.Listed) bool {
				if l.Err != nil || string(l.Ledger.Custom["application"]) == "quire" {
					ids = append(ids, l.ID)
				}
				return true
			})
			if err != nil {
				return err
			}
		}
		bad := 0
		for _, id := range ids {
			n, err := v.verify(p.ctx, p, t, id)
			if errors.Is(err, ledger.ErrNotFound) && len(v.Ledgers) == 0 {
				continue // retention has taken it since it was listed
			}
			if err != nil {
				return err
			}
			bad += n
		}
		if bad > 0 {
			return fmt.Errorf("%d copies are missing or damaged", bad)
		}
		return nil
	})
}

// verify returns how many copies of a ledger are not as they should be.
func (v *ledgerVerifyVerb) verify(ctx context.Context, p *process, t *bookkeeper.Tier, id int64) (bad int, err error) {
	entries := 0
	err = t.Verify(ctx, ledger.ID(id), 0, math.MaxInt64, func(entry int64, copies []bookkeeper.Copy) bool {
		entries++
		for _, c := range copies {
			if c.Err != nil {
				bad++
				fmt.Fprintf(p.stdout, "ledger %d entry %d on %s: %s\n", id, entry, c.Bookie, oneLine(c.Err.Error()))
			}
		}
		return true
	})
	if err == nil {
		fmt.Fprintf(p.stdout, "ledger %d: %d entries, %d bad copies\n", id, entries, bad)
	}
	return bad, err
}
