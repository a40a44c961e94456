package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// nodeVerb works on the nodes of a cluster, by the admin listener of any of them.
type nodeVerb struct {
	List         nodeListVerb     `cmd:"" help:"List nodes."`
	Describe     nodeDescribeVerb `cmd:"" help:"Show all that is known of nodes."`
	Drain        nodeDrainVerb    `cmd:"" help:"Let a node give what it serves to the others, and wait until it has."`
	Await        nodeAwaitVerb    `cmd:"" help:"Wait until the node asked and the others serve, and each has its share."`
	Undrain      nodeUndrainVerb  `cmd:"" help:"Let a node take its share again."`
	MoveSlot     moveSlotVerb     `cmd:"" help:"Say which node serves a slot: of partitions and groups that are hot."`
	UpgradeLevel upgradeLevelVerb `cmd:"" help:"Let nodes use what only newer programs know; older ones refuse to start from then on."`
}

// adminFlags choose the admin listener to ask.
type adminFlags struct {
	Admin string `default:"127.0.0.1:9644" placeholder:"HOST:PORT" help:"Admin listener of any node (${default})."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

const (
	// maxAdminAnswerBytes bounds what is read of an answer.
	maxAdminAnswerBytes = 64 << 20

	// adminPatience bounds how long an admin listener is waited for: a process that is
	// stopped takes connections and says nothing. The longest that one has to do for an
	// answer are some transactions of etcd.
	adminPatience = 15 * time.Second
)

// adminDo sends a request to the admin listener at host and has the answer read. Nothing may
// come for adminPatience at most, before the answer and between what read calls heard for.
func adminDo(ctx context.Context, p *process, method string, at url.URL, read func(r *http.Response, heard func()) error) error {
	patience := cmp.Or(p.patience, adminPatience)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("nothing comes for %s", patience)
	timer := time.AfterFunc(patience, func() { cancel(silent) })
	defer timer.Stop()
	explain := func(err error) error {
		if context.Cause(ctx) == silent {
			err = silent
		}
		return fmt.Errorf("the admin listener at %s does not answer: %w: check --admin and the node's admin.listen", at.Host, unwrapURL(err))
	}
	q, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return fmt.Errorf("--admin %q: %w", at.Host, err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return explain(err)
	}
	defer r.Body.Close()
	timer.Reset(patience)
	if err := read(r, func() { timer.Reset(patience) }); err != nil {
		if ctx.Err() != nil {
			return explain(err)
		}
		return err
	}
	return nil
}

// ask sends a request to the admin listener and reads the answer into v.
func (f *adminFlags) ask(ctx context.Context, p *process, method, path string, query url.Values, v any) error {
	at := url.URL{Scheme: "http", Host: f.Admin, Path: path, RawQuery: query.Encode()}
	return adminDo(ctx, p, method, at, func(r *http.Response, _ func()) error { return f.read(r, v) })
}

func (f *adminFlags) read(r *http.Response, v any) error {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxAdminAnswerBytes))
	if err != nil {
		return fmt.Errorf("the admin listener at %s: %w", f.Admin, err)
	}
	if r.StatusCode != http.StatusOK {
		if why := oneLine(string(text)); why != "" {
			return errors.New(why)
		}
		return fmt.Errorf("the admin listener at %s answers %s", f.Admin, r.Status)
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(v); err != nil {
		return fmt.Errorf("the admin listener at %s answers with something else: %w", f.Admin, err)
	}
	return nil
}

func (f *adminFlags) nodes(ctx context.Context, p *process) (r nodesReport, err error) {
	err = f.ask(ctx, p, http.MethodGet, "/nodes", nil, &r)
	return r, err
}

type nodeListVerb struct {
	adminFlags
}

func (v *nodeListVerb) Run(p *process) error {
	r, err := v.nodes(p.ctx, p)
	if err != nil {
		return err
	}
	if v.JSON {
		return printJSON(p.stdout, r)
	}
	w := newTable(p.stdout, "ID", "NAME", "STATE", "SLOTS", "WEIGHT", "VERSION", "LISTENERS", "SINCE")
	for _, n := range r.Nodes {
		w.row(n.ID, n.Name, n.State, n.Slots, n.Weight, n.Version, n.listeners(), n.since())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Unowned > 0 {
		_, err = fmt.Fprintf(p.stdout, "%d slots wait for a node\n", r.Unowned)
	}
	return err
}

func (n *nodeReport) listeners() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n.Listeners)) {
		all = append(all, name+"://"+n.Listeners[name])
	}
	return strings.Join(all, ",")
}

func (n *nodeReport) since() string {
	if n.StartedMs == 0 {
		return ""
	}
	return stamp(n.StartedMs)
}

type nodeDescribeVerb struct {
	adminFlags
	Nodes []string `arg:"" optional:"" name:"node" help:"Ids or names. Default: all."`
}

func (v *nodeDescribeVerb) Run(p *process) error {
	r, err := v.nodes(p.ctx, p)
	if err != nil {
		return err
	}
	found := r.Nodes
	if len(v.Nodes) > 0 {
		found = nil
		for _, name := range v.Nodes {
			n, ok := r.find(name)
			if !ok {
				return fmt.Errorf("there is no live node %.64q", name)
			}
			found = append(found, n)
		}
	}
	if v.JSON {
		return printJSON(p.stdout, found)
	}
	for i, n := range found {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		w := newTable(p.stdout, "NODE", fmt.Sprint(n.ID))
		w.row("name", n.Name)
		w.row("state", n.State)
		w.row("slots", n.Slots)
		w.row("weight", n.Weight)
		w.row("version", n.Version)
		w.row("feature level", fmt.Sprintf("%d, the cluster is at %d", n.FeatureLevel, r.FeatureLevel))
		w.row("rack", n.Rack)
		w.row("listeners", n.listeners())
		w.row("peer listener", n.Peer)
		w.row("data folder", n.Folder)
		w.row("since", n.since())
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

type nodeDrainVerb struct {
	adminFlags
	Node    string        `arg:"" help:"Id or name."`
	Timeout time.Duration `default:"2m" help:"Time to wait for (${default}); the node goes on after it. 0: do not wait."`
}

// drainLook is how often a node that drains is looked at.
const drainLook = 200 * time.Millisecond

func (v *nodeDrainVerb) Run(p *process) error {
	var asked nodeReport
	if err := v.ask(p.ctx, p, http.MethodPost, "/nodes/"+v.Node+"/drain", nil, &asked); err != nil {
		return err
	}
	if v.Timeout <= 0 {
		return v.tell(p, asked)
	}
	ctx, cancel := context.WithTimeout(p.ctx, v.Timeout)
	defer cancel()
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	told, left := time.Now(), asked.Slots
	for {
		r, err := v.nodes(ctx, p)
		if err == nil {
			n, ok := r.find(v.Node)
			if !ok || n.State == stateDrained {
				if ok {
					asked = n
				} else {
					asked.Slots, asked.State = 0, stateDrained // it has left since
				}
				return v.tell(p, asked)
			}
			left = n.Slots
		} else if ctx.Err() == nil {
			return err
		}
		if time.Since(told) >= time.Second {
			told = time.Now()
			fmt.Fprintf(p.stderr, "node %d (%s): %d slots left\n", asked.ID, asked.Name, left)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if p.ctx.Err() != nil {
				return errInterrupted
			}
			return fmt.Errorf("node %d (%s) still has %d slots after %s; it goes on", asked.ID, asked.Name, left, v.Timeout)
		}
	}
}

func (v *nodeDrainVerb) tell(p *process, n nodeReport) error {
	if v.JSON {
		return printJSON(p.stdout, n)
	}
	what := "drains"
	if n.State == stateDrained {
		what = "is drained"
	}
	_, err := fmt.Fprintf(p.stdout, "node %d (%s) %s\n", n.ID, n.Name, what)
	return err
}

type nodeAwaitVerb struct {
	adminFlags
	Nodes   int           `default:"1" help:"Least number of nodes that serve (${default})."`
	Timeout time.Duration `default:"2m" help:"Time to wait for (${default})."`
	Print   string        `enum:"line,id,name" default:"line" help:"What to print then of the node asked: line, id or name."`
}

// awaitLook is how often nodes are looked at that are waited for.
const awaitLook = 500 * time.Millisecond

func (v *nodeAwaitVerb) Run(p *process) error {
	ctx, cancel := context.WithTimeout(p.ctx, v.Timeout)
	defer cancel()
	tick := time.NewTicker(awaitLook)
	defer tick.Stop()
	for {
		n, why := v.look(ctx, p)
		if why == nil {
			return v.tell(p, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if p.ctx.Err() != nil {
				return errInterrupted
			}
			return fmt.Errorf("after %s: %w", v.Timeout, why)
		}
	}
}

// look says what there is still to wait for.
func (v *nodeAwaitVerb) look(ctx context.Context, p *process) (n nodeReport, why error) {
	r, err := v.nodes(ctx, p)
	if err != nil {
		return n, err
	}
	n, ok := r.find(self)
	serving := 0
	for _, other := range r.Nodes {
		if other.State == stateServing {
			serving++
		}
	}
	switch {
	case !ok || n.State != stateServing:
		return n, fmt.Errorf("node %d (%s) is %s", n.ID, n.Name, n.State)
	case serving < v.Nodes:
		return n, fmt.Errorf("%d nodes serve, of %d", serving, v.Nodes)
	case r.Unowned > 0:
		return n, fmt.Errorf("%d slots wait for a node", r.Unowned)
	case r.Moving > 0:
		return n, fmt.Errorf("%d slots are moving", r.Moving)
	}
	return n, v.ready(ctx, p)
}

// ready asks the node's readiness check.
func (f *adminFlags) ready(ctx context.Context, p *process) error {
	at := url.URL{Scheme: "http", Host: f.Admin, Path: "/readyz"}
	return adminDo(ctx, p, http.MethodGet, at, func(r *http.Response, _ func()) error {
		text, err := io.ReadAll(io.LimitReader(r.Body, maxAdminAnswerBytes))
		if err == nil && r.StatusCode != http.StatusOK {
			err = errors.New(oneLine(string(text)))
		}
		return err
	})
}

func (v *nodeAwaitVerb) tell(p *process, n nodeReport) error {
	switch {
	case v.JSON:
		return printJSON(p.stdout, n)
	case v.Print == "id":
		_, err := fmt.Fprintln(p.stdout, n.ID)
		return err
	case v.Print == "name":
		_, err := fmt.Fprintln(p.stdout, n.Name)
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "node %d (%s) serves %d slots\n", n.ID, n.Name, n.Slots)
	return err
}

type nodeUndrainVerb struct {
	adminFlags
	Node string `arg:"" help:"Id or name."`
}

func (v *nodeUndrainVerb) Run(p *process) error {
	var n nodeReport
	if err := v.ask(p.ctx, p, http.MethodPost, "/nodes/"+v.Node+"/undrain", nil, &n); err != nil {
		return err
	}
	if v.JSON {
		return printJSON(p.stdout, n)
	}
	_, err := fmt.Fprintf(p.stdout, "node %d (%s) takes slots again\n", n.ID, n.Name)
	return err
}

type moveSlotVerb struct {
	adminFlags
	Slot  int    `arg:"" optional:"" default:"-1" help:"Number of the slot, or by one of the flags."`
	Topic string `placeholder:"TOPIC:PARTITION" xor:"of" help:"The slot of a partition."`
	Group string `xor:"of" help:"The slot of a group."`
	To    string `placeholder:"NODE" help:"Id or name of the node. Default: the one that the weights say."`
}

func (v *moveSlotVerb) Run(p *process) error {
	q := url.Values{"node": {v.To}}
	switch {
	case v.Slot >= 0:
		q.Set("slot", fmt.Sprint(v.Slot))
	case v.Topic != "":
		topic, partition, _ := strings.Cut(v.Topic, ":")
		q.Set("topic", topic)
		q.Set("partition", partition)
	case v.Group != "":
		q.Set("group", v.Group)
	default:
		return errors.New("no slot is named: give its number, --topic or --group")
	}
	var m slotMove
	if err := v.ask(p.ctx, p, http.MethodPost, "/slots/move", q, &m); err != nil {
		return err
	}
	if v.JSON {
		return printJSON(p.stdout, m)
	}
	to := "where the weights say"
	if m.To >= 0 {
		to = fmt.Sprintf("to node %d", m.To)
	}
	_, err := fmt.Fprintf(p.stdout, "slot %d goes %s, from node %d\n", m.Slot, to, m.From)
	return err
}

type upgradeLevelVerb struct {
	adminFlags
	To int32 `placeholder:"LEVEL" help:"Level. Default: the highest that all nodes know."`
}

func (v *upgradeLevelVerb) Run(p *process) error {
	var level struct {
		FeatureLevel int32 `json:"featureLevel"`
	}
	if err := v.ask(p.ctx, p, http.MethodPost, "/feature-level", url.Values{"to": {fmt.Sprint(v.To)}}, &level); err != nil {
		return err
	}
	if v.JSON {
		return printJSON(p.stdout, level)
	}
	_, err := fmt.Fprintf(p.stdout, "the cluster is at feature level %d\n", level.FeatureLevel)
	return err
}
