package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quirelog/quire/conformance/peer"
)

// Tools install clients into the suite's cache. Versions are the caller's to
// pin; whatever has a new version gets a new folder. Not safe for concurrent use.
type Tools struct {
	Root string // folder of the conformance module
	Work string // the cache

	built map[string]bool // programs that this process has built with Go
}

func newTools() (*Tools, error) {
	root, err := peer.ModuleRoot()
	if err != nil {
		return nil, err
	}
	work, err := peer.WorkDir()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"bin", "logs"} {
		if err := os.MkdirAll(filepath.Join(work, "zoo", dir), 0o755); err != nil {
			return nil, err
		}
	}
	return &Tools{Root: root, Work: work, built: map[string]bool{}}, nil
}

// Source returns the path of a file or folder of conformance/clients.
func (t *Tools) Source(elements ...string) string {
	return filepath.Join(append([]string{t.Root, "clients"}, elements...)...)
}

// Maven resolves coordinates (group:artifact:version) with what they depend on,
// less what is excluded (group:artifact), and returns a class path.
func (t *Tools) Maven(ctx context.Context, name string, artifacts, excluded []string) (classPath string, err error) {
	return peer.JarSet{Name: name, Artifacts: artifacts, Excluded: excluded}.Fetch(ctx)
}

// Javac compiles the sources against a class path and returns the folder of the
// classes.
func (t *Tools) Javac(ctx context.Context, name, classPath string, sources ...string) (dir string, err error) {
	javac, err := exec.LookPath("javac")
	if err != nil {
		return "", fmt.Errorf("%w: javac: install a JDK 17 or later (Debian: apt-get install openjdk-17-jdk-headless)", peer.ErrMissingTool)
	}
	key, err := hashFiles(sources, classPath)
	if err != nil {
		return "", err
	}
	return peer.Cached("zoo/java", name, key, func(dir string) error {
		args := append([]string{"--release", "17", "-nowarn", "-Xlint:none", "-proc:none", "-cp", classPath, "-d", dir}, sources...)
		return t.run(exec.CommandContext(ctx, javac, args...))
	})
}

// GoBuild builds the main package in folder, which may be a module of its own,
// and returns the binary. flags go to go build, -modfile=… for one folder at
// several versions. Each is built once by a process: Go's own cache makes that
// cheap, and keeps a program from being older than its source.
func (t *Tools) GoBuild(ctx context.Context, name, folder string, flags ...string) (binary string, err error) {
	binary = filepath.Join(t.Work, "zoo", "bin", name)
	args := slices.Concat([]string{"build", "-o", binary}, flags, []string{"."})
	program := folder + " " + strings.Join(args, " ")
	if t.built[program] {
		return binary, nil
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	err = t.run(cmd)
	t.built[program] = err == nil
	return binary, err
}

// Pip installs requirements (package==version, the dependencies among them) and
// returns the interpreter and the folder for PYTHONPATH. options go to pip
// install.
func (t *Tools) Pip(ctx context.Context, name string, requirements []string, options ...string) (python, folder string, err error) {
	if python, err = peer.Debian(ctx, "python3", "python3", "python3-pip"); err != nil {
		return "", "", err
	}
	folder, err = peer.Cached("zoo/python", name, key(requirements, options), func(dir string) error {
		args := slices.Concat([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", dir}, options, requirements)
		return t.run(exec.CommandContext(ctx, python, args...))
	})
	return python, folder, err
}

// Npm installs packages (name@version) and returns the interpreter and the
// folder for NODE_PATH. options go to npm install; without "--ignore-scripts"
// among them packages may build native code.
func (t *Tools) Npm(ctx context.Context, name string, packages []string, options ...string) (node, folder string, err error) {
	for _, command := range []string{"npm", "node"} {
		if node, err = peer.Debian(ctx, command, "nodejs", "npm"); err != nil {
			return "", "", err
		}
	}
	dir, err := peer.Cached("zoo/node", name, key(packages, options), func(dir string) error {
		args := slices.Concat([]string{"install", "--prefix", dir, "--no-save", "--no-audit", "--no-fund", "--loglevel=error"}, options, packages)
		return t.run(exec.CommandContext(ctx, "npm", args...))
	})
	return node, filepath.Join(dir, "node_modules"), err
}

// Cargo builds the package in folder, whose Cargo.lock pins everything, and
// returns the binary of that name.
func (t *Tools) Cargo(ctx context.Context, folder, binary string) (path string, err error) {
	cargo, err := peer.Debian(ctx, "cargo", "cargo")
	if err != nil {
		return "", err
	}
	target := filepath.Join(t.Work, "zoo", "rust", filepath.Base(folder))
	cmd := exec.CommandContext(ctx, cargo, "build", "--release", "--locked", "--quiet", "--target-dir", target)
	cmd.Dir = folder
	return filepath.Join(target, "release", binary), t.run(cmd)
}

// run gives the end of the command's output with its error.
func (t *Tools) run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

func key(lists ...[]string) []byte {
	var b bytes.Buffer
	for _, list := range lists {
		fmt.Fprintf(&b, "%q\n", list)
	}
	return b.Bytes()
}

// hashFiles makes a key of the files' contents, those in folders included.
func hashFiles(paths []string, more ...string) ([]byte, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", more)
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(file)
			fmt.Fprintf(h, "%s %d\n%s", filepath.Base(file), len(b), b)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return h.Sum(nil), nil
}
