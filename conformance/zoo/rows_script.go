package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/quirelog/quire/conformance/peer"
)

// A scriptClient is one version of a library with a program in clients/folder.
type scriptClient struct {
	row      string // beginning of the rows' names
	client   string
	version  string
	folder   string
	codecs   []string // that the newest protocol version lets it write
	packages []string // for pip, with what they depend on; what npm brings is in the folder's lock file
	carries  Row      // Headers, Timestamps and Nulls
	ci       bool
}

// What the Python libraries of all versions compress with.
var pythonCodecs = []string{"python-snappy==0.7.3", "cramjam==2.14.0", "lz4==4.4.5", "zstandard==0.25.0", "xxhash==4.1.0"}

func rowsScript() []Row {
	all := Row{Headers: true, Timestamps: true, Nulls: true}
	python := func(version string, codecs []string, ci bool) scriptClient {
		return scriptClient{row: "kafka-python-" + version, client: "kafka-python", version: version, folder: "kafka-python",
			codecs: codecs, packages: append(slices.Clone(pythonCodecs), "kafka-python=="+version), carries: all, ci: ci}
	}
	aio := func(version string, packages ...string) scriptClient {
		return scriptClient{row: "aiokafka-" + version, client: "aiokafka", version: version, folder: "aiokafka", codecs: codecs, carries: all,
			packages: slices.Concat(pythonCodecs, []string{"aiokafka==" + version, "async-timeout==5.0.1", "packaging==26.3", "typing_extensions==4.16.0"}, packages)}
	}
	confluent := func(version string) scriptClient {
		return scriptClient{row: "confluent-kafka-python-" + version, client: "confluent-kafka-python (librdkafka)", version: version,
			folder: "confluent-kafka-python", codecs: codecs, packages: []string{"confluent-kafka==" + version}, carries: all}
	}
	kafkajs := scriptClient{row: "kafkajs-2.2.4", client: "KafkaJS", version: "2.2.4", folder: "kafkajs", codecs: codecs, carries: all}
	kafkaNode := scriptClient{row: "kafka-node-5.0.0", client: "kafka-node", version: "5.0.0", folder: "kafka-node", codecs: codecs[:3], carries: Row{Nulls: true}}
	noKafka := scriptClient{row: "no-kafka-3.4.4", client: "no-kafka", version: "3.4.4", folder: "no-kafka", codecs: codecs[:3], carries: Row{Nulls: true}}
	platformatic := scriptClient{row: "platformatic-kafka-2.12.1", client: "@platformatic/kafka", version: "2.12.1", folder: "platformatic-kafka", codecs: codecs, carries: all}
	// It is built on this machine, where zstd may be missing, and builds no more on any
	// with a node-gyp of today.
	nodeRdkafka := scriptClient{row: "node-rdkafka-3.6.1", client: "node-rdkafka (librdkafka)", version: "3.6.1", folder: "node-rdkafka", codecs: codecs[:4],
		carries: Row{Headers: true, Timestamps: true, // It writes what is empty as null.
			Impossible: map[string]string{"install": "its build of librdkafka does not run its configure script before make needs what that writes (node-gyp 12, Node.js 20)"}}}
	rdkafka := scriptClient{row: "rust-rdkafka-0.39.0", client: "rust-rdkafka (librdkafka)", version: "0.39.0", folder: "rdkafka-rust", codecs: codecs, carries: all}
	kafkaRust := scriptClient{row: "kafka-rust-0.10.0", client: "kafka-rust", version: "0.10.0", folder: "kafka-rust", codecs: codecs[:3]}

	return slices.Concat(
		pythonRows(python("1.4.7", codecs[:4], false), "0.8.1", "0.8.2", "0.9", "0.10.0", "1.0", ""),
		pythonRows(python("2.0.2", codecs, false), "0.8.2", "0.9", "0.11.0", "2.5", ""),
		pythonRows(python("3.0.12", codecs, true), "0.8.2", "0.9", "0.10.0", "0.11", "2.1", ""),
		pythonRows(aio("0.8.1", "kafka-python==2.0.2"), "0.9", "0.10.0", "0.11", ""),
		pythonRows(aio("0.14.0"), ""),
		pythonRows(confluent("2.0.2"), ""),
		pythonRows(confluent("2.16.1"), ""),
		[]Row{
			kafkajs.build(installNode), kafkaNode.build(installNode), noKafka.build(installNode),
			platformatic.build(installNode24), nodeRdkafka.build(installNode),
			rdkafka.build(installRust), kafkaRust.build(installRust),
		},
	)
}

// pythonRows are the rows of one version of a library, one for each release whose
// protocol it is told to speak; "" leaves it to the library.
func pythonRows(c scriptClient, protocols ...string) []Row {
	var rows []Row
	for _, p := range protocols {
		as := c
		if p != "" {
			as.row += "-as-" + p
			as.version += " as " + p
			as.carries.Timestamps = !before(p, "0.10")
			as.carries.Headers = !before(p, "0.11")
			as.ci = false
			switch {
			case before(p, "0.8.2"):
				as.codecs = codecs[:3]
			case before(p, "2.1"):
				as.codecs = codecs[:4]
			}
		}
		rows = append(rows, as.build(func(ctx context.Context, t *Tools, c scriptClient) (Program, error) {
			// One folder serves all protocols of a version.
			python, folder, err := t.Pip(ctx, c.folder+"-"+c.packages[len(c.packages)-1], c.packages, "--no-deps")
			return Program{
				Args: []string{python, t.Source(c.folder, "main.py")},
				Env:  []string{"PYTHONPATH=" + folder, "PYTHONDONTWRITEBYTECODE=1", "ZOO_VERSION=" + p},
			}, err
		}))
	}
	return rows
}

func (c scriptClient) build(install func(context.Context, *Tools, scriptClient) (Program, error)) Row {
	r := c.carries
	r.Name, r.Client, r.Version, r.CI = c.row, c.client, c.version, c.ci
	r.Codecs = c.codecs
	carried := carries(r)
	r.Install = func(ctx context.Context, t *Tools) (Program, error) {
		program, err := install(ctx, t, c)
		program.Env = append(program.Env, "ZOO_CARRIES="+carried)
		return program, err
	}
	return r
}

func installNode(ctx context.Context, t *Tools, c scriptClient) (Program, error) {
	node, modules, err := npmClean(ctx, t, t.Source(c.folder))
	return Program{
		Args: []string{node, t.Source(c.folder, "main.js")},
		Env:  []string{"NODE_PATH=" + modules, "NODE_NO_WARNINGS=1"},
	}, err
}

// installNode24 is for a library that needs a newer Node.js than distributions
// have: npm has the interpreter too, a package for each platform.
func installNode24(ctx context.Context, t *Tools, c scriptClient) (Program, error) {
	program, err := installNode(ctx, t, c)
	if err != nil {
		return program, err
	}
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if runtime.GOOS != "linux" || arch == "" {
		return program, fmt.Errorf("%w: node: %s needs Node.js 24, which is fetched for Linux only", peer.ErrMissingTool, c.client)
	}
	name := "node-linux-" + arch
	_, folder, err := t.Npm(ctx, name, []string{name + "@24.21.0"}, "--ignore-scripts")
	program.Args[0] = filepath.Join(folder, name, "bin", "node")
	return program, err
}

// npmClean installs what the lock file in folder says, native code included, and
// returns the interpreter and the folder for NODE_PATH.
func npmClean(ctx context.Context, t *Tools, folder string) (node, modules string, err error) {
	for _, command := range []string{"npm", "node"} {
		if node, err = peer.Debian(ctx, command, "nodejs", "npm"); err != nil {
			return "", "", err
		}
	}
	files := []string{filepath.Join(folder, "package.json"), filepath.Join(folder, "package-lock.json")}
	key, err := hashFiles(files)
	if err != nil {
		return "", "", err
	}
	dir, err := peer.Cached("zoo/node", filepath.Base(folder), key, func(dir string) error {
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), content, 0o644); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "JOBS="+fmt.Sprint(runtime.NumCPU()))
		// Native code is compiled against the headers beside the interpreter,
		// where there are any, rather than against downloaded ones.
		if real, err := filepath.EvalSymlinks(node); err == nil {
			prefix := filepath.Dir(filepath.Dir(real))
			if _, err := os.Stat(filepath.Join(prefix, "include", "node", "node.h")); err == nil {
				cmd.Env = append(cmd.Env, "npm_config_nodedir="+prefix)
			}
		}
		return t.run(cmd)
	})
	return node, filepath.Join(dir, "node_modules"), err
}

func installRust(ctx context.Context, t *Tools, c scriptClient) (Program, error) {
	if _, err := exec.LookPath("cargo"); err != nil {
		return Program{}, fmt.Errorf("%w: cargo: install Rust", peer.ErrMissingTool)
	}
	binary, err := t.Cargo(ctx, t.Source(c.folder), "zoo-"+c.folder)
	return Program{Args: []string{binary}}, err
}
