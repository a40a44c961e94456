package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// verbs is the command line. Every verb has a Run method that takes a *process.
type verbs struct {
	Serve   serveVerb   `cmd:"" help:"Run the server."`
	Node    nodeVerb    `cmd:"" help:"List, describe and drain the nodes of a cluster, and move what they serve."`
	Cluster clusterVerb `cmd:"" help:"Look at a cluster's metadata, and recover from a restored etcd."`
	Topic   topicVerb   `cmd:"" help:"Create, list, describe, alter and delete topics."`
	Ledger  ledgerVerb  `cmd:"" help:"Look at the ledgers of a BookKeeper cluster."`
	Group   groupVerb   `cmd:"" help:"List, describe, reset, delete, export and import consumer groups."`
	Produce produceVerb `cmd:"" help:"Send lines from standard input to a topic."`
	Consume consumeVerb `cmd:"" help:"Print the records of a topic."`
	Config  configVerb  `cmd:"" help:"Check and print the configuration."`
	Version versionVerb `cmd:"" help:"Print the version."`

	PrintVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// process is what a verb may use of the process around it.
type process struct {
	ctx     context.Context // ends at the first SIGINT or SIGTERM
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string

	// patience is how long an admin listener may leave a question unanswered; 0:
	// adminPatience.
	patience time.Duration
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		// The second signal: whoever sends it does not want to wait. What is
		// acknowledged is on disk already.
		os.Exit(130)
	}()
	p := &process{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	os.Exit(run(p, os.Args[1:]))
}

// run executes one command line and returns the exit status. Every error is one
// line on standard error.
func run(p *process, args []string) (status int) {
	var v verbs
	exited := -1
	parser, err := kong.New(&v,
		kong.Name("quire"),
		kong.Description("Kafka's protocol in front of a log of fenced ledgers.\n\nquire serve needs no flags. Every key that quire config print lists can be set in a YAML file (--config), as an environment variable (QUIRE_NUM_PARTITIONS) or as a flag (--num.partitions=3, or --override num.partitions=3); the later wins."),
		kong.Vars(flagVars()),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // the verbs above are wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := parser.Parse(keyFlags(args))
	if exited >= 0 {
		return exited // --help has printed
	}
	if err == nil {
		err = ctx.Run(p)
	} else {
		err = fmt.Errorf("%w (quire --help lists what there is)", explainFlag(args, err))
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "quire: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

// keyFlags turns flags that are named like keys of the configuration, with their dots,
// into overrides: --num.partitions=3, or --num.partitions 3. Those keep their dashes,
// by which configFlags.load knows what was typed.
func keyFlags(args []string) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		flag, ok := strings.CutPrefix(args[i], "--")
		if args[i] == "--" {
			return append(out, args[i:]...)
		}
		name, value, given := strings.Cut(flag, "=")
		if !ok || !strings.Contains(name, ".") { // no flag but those has one
			out = append(out, args[i])
			continue
		}
		if !given && i+1 < len(args) {
			i++
			value = args[i]
		}
		out = append(out, "--override=--"+name+"="+value)
	}
	return out
}

// explainFlag names what was typed where keyFlags has made something else of it.
func explainFlag(args []string, err error) error {
	if !strings.HasPrefix(err.Error(), "unknown flag --override") || slices.ContainsFunc(args, func(a string) bool {
		return a == "--override" || strings.HasPrefix(a, "--override=")
	}) {
		return err
	}
	for _, a := range args {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(name, "--") && strings.Contains(name, ".") {
			return fmt.Errorf("unknown flag %s: this command reads no configuration", name)
		}
	}
	return err
}

// flagVars gives flags their help and default from the catalog.
func flagVars() kong.Vars {
	vars := kong.Vars{"bootstrap_env": bootstrapEnv, "config_env": configEnv, "version": versionLine()}
	for i := range catalog {
		k := &catalog[i]
		name := strings.ReplaceAll(k.Name, ".", "_")
		vars[name+"_doc"] = k.Doc
		vars[name+"_default"] = k.Default
	}
	return vars
}

// configFlags choose the configuration. The shortcuts are the keys that nearly
// everybody sets.
type configFlags struct {
	Config              string   `placeholder:"FILE" help:"YAML file with the configuration ($$${config_env})."`
	DataDir             *string  `placeholder:"DIR" help:"${data_dir_doc} Default ${data_dir_default}."`
	Listeners           *string  `placeholder:"NAME://HOST:PORT,…" help:"${listeners_doc} Default ${listeners_default}."`
	AdvertisedListeners *string  `placeholder:"NAME://HOST:PORT,…" help:"${advertised_listeners_doc}"`
	AdminListen         *string  `placeholder:"HOST:PORT" help:"${admin_listen_doc} Default ${admin_listen_default}."`
	Override            []string `placeholder:"KEY=VALUE" sep:"none" help:"Set any key; repeatable."`
}

func (f *configFlags) load(p *process) (*config, error) {
	var overrides []override
	for _, s := range []struct {
		key   string
		value *string
	}{
		{"data.dir", f.DataDir},
		{"listeners", f.Listeners},
		{"advertised.listeners", f.AdvertisedListeners},
		{"admin.listen", f.AdminListen},
	} {
		if s.value != nil {
			overrides = append(overrides, override{Key: s.key, Value: *s.value, Flag: "--" + strings.ReplaceAll(s.key, ".", "-")})
		}
	}
	for _, o := range f.Override {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return nil, fmt.Errorf("--override %s: expected KEY=VALUE", o)
		}
		flag := "--override"
		if key, dotted := strings.CutPrefix(k, "--"); dotted {
			k, flag = key, k
		}
		overrides = append(overrides, override{Key: strings.TrimSpace(k), Value: v, Flag: flag})
	}
	file := f.Config
	if file == "" {
		file = lookupEnv(p.environ, configEnv)
	}
	return loadConfig(file, p.environ, overrides)
}

// lookupEnv returns a variable of environ, "" if it is not there.
func lookupEnv(environ []string, name string) string {
	for _, e := range environ {
		if k, v, _ := strings.Cut(e, "="); k == name {
			return v
		}
	}
	return ""
}

type configVerb struct {
	Check configCheckVerb `cmd:"" help:"Say whether the configuration is valid."`
	Print configPrintVerb `cmd:"" help:"Print every key with its meaning, as a configuration file."`
}

type configCheckVerb struct {
	configFlags
}

func (v *configCheckVerb) Run(p *process) error {
	c, err := v.load(p)
	if err != nil {
		return err
	}
	where := c.File
	if where == "" {
		where = "no file"
	}
	_, err = fmt.Fprintf(p.stdout, "configuration is valid (%s)\n", where)
	return err
}

type configPrintVerb struct {
	configFlags
	Effective bool `help:"Print the values in force and where each comes from."`
}

func (v *configPrintVerb) Run(p *process) error {
	c, err := v.load(p)
	if err != nil {
		return err
	}
	return c.print(p.stdout, v.Effective)
}

type versionVerb struct{}

func (versionVerb) Run(p *process) error {
	_, err := fmt.Fprintln(p.stdout, versionLine())
	return err
}

func versionLine() string { return "quire " + version() }

// release is set by the linker when a release is built (-X main.release=v1.2.3).
var release string

// version names this build: the release, else the module version or commit that
// the Go toolchain recorded.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if revision != "" {
		return "development " + revision + modified
	}
	return "development"
}

// errInterrupted ends a verb that a signal stopped before it was done.
var errInterrupted = errors.New("interrupted")
