package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/twmb/franz-go/pkg/kadm"
)

// groupVerb works on consumer groups, as Kafka's kafka-consumer-groups does.
// Flags have its names where the meaning is the same.
type groupVerb struct {
	List          groupListVerb          `cmd:"" help:"List groups."`
	Describe      groupDescribeVerb      `cmd:"" help:"Show offsets and lag, members, or the state of groups."`
	ResetOffsets  groupResetVerb         `cmd:"" help:"Move committed offsets of groups without members; only shows the plan unless told to --execute."`
	Delete        groupDeleteVerb        `cmd:"" help:"Delete groups without members, with their committed offsets."`
	DeleteOffsets groupDeleteOffsetsVerb `cmd:"" help:"Delete committed offsets of topics that nobody in the group subscribes to."`
	Export        groupExportVerb        `cmd:"" help:"Print groups and their committed offsets as JSON."`
	Import        groupImportVerb        `cmd:"" help:"Commit the offsets of a file that group export wrote, here or on another Kafka server."`
}

// groupFlags choose groups.
type groupFlags struct {
	Group     []string `sep:"none" placeholder:"GROUP" help:"Group; repeatable."`
	AllGroups bool     `help:"All groups of consumers."`
}

func (f *groupFlags) check() error {
	switch {
	case len(f.Group) == 0 && !f.AllGroups:
		return errors.New("no group is named: give --group or --all-groups")
	case len(f.Group) > 0 && f.AllGroups:
		return errors.New("--group and --all-groups exclude each other")
	case slices.Contains(f.Group, ""):
		return errors.New("--group: a group cannot have an empty name")
	}
	return nil
}

// chosen runs do with a client and the names of the groups.
func (f *groupFlags) chosen(p *process, server *clientFlags, do func(c *groupClient, names []string) error) error {
	if err := f.check(); err != nil {
		return err
	}
	return server.groups(p, func(c *groupClient) error {
		names, err := f.names(c)
		if err != nil {
			return err
		}
		return do(c, names)
	})
}

// names are the groups chosen, sorted, each once.
func (f *groupFlags) names(c *groupClient) ([]string, error) {
	names := slices.Clone(f.Group)
	if f.AllGroups {
		listed, err := c.list()
		if err != nil {
			return nil, err
		}
		for _, g := range listed {
			if g.ofConsumers() {
				names = append(names, g.Group)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// listedGroup is a group as ListGroups names it.
type listedGroup struct {
	Group        string `json:"group"`
	Type         string `json:"type"` // classic, consumer, share, streams
	ProtocolType string `json:"protocolType"`
	State        string `json:"state,omitempty"` // not told before Kafka 2.6
}

// The types of groups that commit offsets of topics.
const (
	classicType  = "classic"
	consumerType = "consumer"
)

// consumerProtocol is the protocol type of consumers. A group that was made by
// commits alone has none.
const consumerProtocol = "consumer"

// ofConsumers leaves out Kafka Connect's workers, schema registries and the
// like, which use groups for something else than reading topics.
func (g *listedGroup) ofConsumers() bool {
	return (g.Type == classicType || g.Type == consumerType) && (g.ProtocolType == consumerProtocol || g.ProtocolType == "")
}

type groupListVerb struct {
	clientFlags
	Type  []string `placeholder:"TYPE,…" help:"Only groups of these types: classic, consumer."`
	State []string `placeholder:"STATE,…" help:"Only groups in these states: Empty, Stable, PreparingRebalance, CompletingRebalance, Assigning, Reconciling."`
	JSON  bool     `name:"json" help:"Print JSON."`
}

func (v *groupListVerb) Run(p *process) error {
	return v.groups(p, func(c *groupClient) error {
		groups, err := c.list()
		if err != nil {
			return err
		}
		groups = slices.DeleteFunc(groups, func(g listedGroup) bool {
			return !anyFold(v.Type, g.Type) || !anyFold(v.State, g.State)
		})
		if v.JSON {
			return printJSON(p.stdout, groups)
		}
		w := newTable(p.stdout, "GROUP", "TYPE", "PROTOCOL", "STATE")
		for _, g := range groups {
			w.row(g.Group, g.Type, g.ProtocolType, g.State)
		}
		return w.Flush()
	})
}

// anyFold reports whether value is one of wanted, in any case, or nothing is wanted.
func anyFold(wanted []string, value string) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(w, value) })
}

type groupDeleteVerb struct {
	clientFlags
	groupFlags
}

func (v *groupDeleteVerb) Run(p *process) error {
	return v.chosen(p, &v.clientFlags, func(c *groupClient, names []string) error {
		var failed []error
		for chunk := range slices.Chunk(names, groupsAtOnce) {
			for _, d := range c.delete(chunk) {
				if d.Err != nil {
					failed = append(failed, explainGroup(d.Group, d.Err, d.ErrMessage))
					continue
				}
				fmt.Fprintf(p.stdout, "deleted %s\n", cell(d.Group))
			}
		}
		return summarize(p, failed, "groups were not deleted")
	})
}

// summarize returns a single failure as it is, and says more of them a line each.
func summarize(p *process, failed []error, what string) error {
	if len(failed) <= 1 {
		return joinLine(failed)
	}
	for _, err := range failed {
		fmt.Fprintln(p.stderr, oneLine(err.Error()))
	}
	return fmt.Errorf("%d %s", len(failed), what)
}

// table is aligned columns under a header.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	fmt.Fprintln(t, strings.Join(header, "\t"))
	return t
}

func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case *int64:
			texts[i] = "-"
			if c != nil {
				texts[i] = strconv.FormatInt(*c, 10)
			}
		case *int32:
			texts[i] = "-"
			if c != nil {
				texts[i] = strconv.FormatInt(int64(*c), 10)
			}
		default:
			texts[i] = cell(fmt.Sprint(c))
		}
	}
	fmt.Fprintln(t, strings.Join(texts, "\t"))
}

// cell is a text that stays in its column: names of groups and clients are
// whatever some client sent, control sequences of terminals included.
func cell(text string) string {
	switch {
	case text == "":
		return "-"
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.Quote(text)
	}
	return text
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// compareOffsets orders by topic and partition.
func compareOffsets(a, b kadm.Offset) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}
