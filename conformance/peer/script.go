package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A ScriptClient is a client library of a scripting language at a pinned
// version: its language's package tool brings it into the cache, and scripts
// of this suite import it from there.
type ScriptClient struct {
	Name        string // package@version, folder below the cache
	interpreter string
	installer   string   // the command of the package tool
	packages    []string // Debian's, that hold both
	pathEnv     string   // environment variable that names the folder to import from
	subfolder   string   // of the cache's folder, that pathEnv names
	install     func(ctx context.Context, interpreter, dir string) *exec.Cmd
}

var (
	// KafkaPython is the pure Python client.
	KafkaPython = ScriptClient{
		Name:        "kafka-python@3.0.12",
		interpreter: "python3",
		installer:   "pip3",
		packages:    []string{"python3", "python3-pip"},
		pathEnv:     "PYTHONPATH",
		install: func(ctx context.Context, python, dir string) *exec.Cmd {
			return exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
				"--no-deps", "--target", dir, "kafka-python==3.0.12")
		},
	}
	// KafkaJS is the client of Node.js.
	KafkaJS = ScriptClient{
		Name:        "kafkajs@2.2.4",
		interpreter: "node",
		installer:   "npm",
		packages:    []string{"nodejs", "npm"},
		pathEnv:     "NODE_PATH",
		subfolder:   "node_modules",
		install: func(ctx context.Context, _, dir string) *exec.Cmd {
			return exec.CommandContext(ctx, "npm", "install", "--prefix", dir, "--no-save", "--no-audit", "--no-fund",
				"--ignore-scripts", "--loglevel=error", "kafkajs@2.2.4")
		},
	}
)

// ScriptClients lists every library, for fetching them all.
var ScriptClients = []ScriptClient{KafkaPython, KafkaJS}

// Fetch installs the library into the cache unless it is there already, and
// returns the interpreter and the folder to import from. Safe to call from
// several processes at once.
func (s ScriptClient) Fetch(ctx context.Context) (interpreter, folder string, err error) {
	for _, command := range []string{s.installer, s.interpreter} {
		if interpreter, err = Debian(ctx, command, s.packages...); err != nil {
			return "", "", err
		}
	}
	work, err := WorkDir()
	if err != nil {
		return "", "", err
	}
	parent := filepath.Join(work, "scripts")
	dir := filepath.Join(parent, s.Name)
	folder = filepath.Join(dir, s.subfolder)
	if exists(dir) {
		return interpreter, folder, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", "", err
	}
	unlock, err := lock(filepath.Join(parent, s.Name+".lock"))
	if err != nil {
		return "", "", err
	}
	defer unlock()
	if exists(dir) {
		return interpreter, folder, nil
	}
	// The folder gets its final name only when complete: an interrupted
	// download is started again.
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", "", err
	}
	if out, err := s.install(ctx, interpreter, part).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w: %s: %v\n%s", ErrMissingTool, s.Name, err, lastLines(out, 10))
	}
	return interpreter, folder, os.Rename(part, dir)
}

// Command returns the command that runs a script with the library. The child
// dies with this process.
func (s ScriptClient) Command(ctx context.Context, script string, args ...string) (*exec.Cmd, error) {
	interpreter, folder, err := s.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, interpreter, append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), s.pathEnv+"="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}
