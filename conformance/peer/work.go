package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrMissingTool is wrapped by every error that says a program of the machine
// (java, mvn, kcat, go) is not there. The text names what to install.
var ErrMissingTool = errors.New("missing tool")

// ModuleRoot returns the folder of this module: the one that holds its go.mod.
// Set QUIRE_CONFORMANCE_ROOT to run a compiled test binary elsewhere.
func ModuleRoot() (string, error) {
	if dir := os.Getenv("QUIRE_CONFORMANCE_ROOT"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/quirelog/quire/conformance\n") {
			return dir, nil
		}
		// Commands may also be started from the product's own root.
		if sub := filepath.Join(dir, "conformance", "go.mod"); exists(sub) {
			return filepath.Join(dir, "conformance"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside the conformance module: run from its folder or set QUIRE_CONFORMANCE_ROOT")
		}
	}
}

// WorkDir returns the cache folder for downloads, built programs and data,
// created when absent: QUIRE_CONFORMANCE_WORK, or .work beside go.mod.
func WorkDir() (string, error) {
	dir := os.Getenv("QUIRE_CONFORMANCE_WORK")
	if dir == "" {
		root, err := ModuleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".work")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// DataDir returns dir, or a new folder in the cache folder if it is "". Its user
// removes it.
func DataDir(dir, name string) (string, error) {
	if dir != "" {
		return dir, os.MkdirAll(dir, 0o755)
	}
	work, err := WorkDir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(work, name+"-")
}

// QuireBinary returns the program under test: QUIRE_BIN when set, else
// .work/bin/quire, built from the parent folder by the first call of this
// process. The Go tool's own cache makes building again cheap, so a binary of
// older source is never tested.
func QuireBinary(ctx context.Context) (string, error) {
	if bin := os.Getenv("QUIRE_BIN"); bin != "" {
		if !exists(bin) {
			return "", fmt.Errorf("QUIRE_BIN=%s: no such file", bin)
		}
		return bin, nil
	}
	return buildQuire()
}

var buildQuire = sync.OnceValues(func() (string, error) {
	return goBuild("quire", "..", "./cmd/quire")
})

// BuildPlanted builds the program under test with the bugs of storage/planted in it.
func BuildPlanted() (string, error) {
	return goBuild("quire-planted", "..", "./cmd/quire", "-tags", "planted")
}

// BuildCommand builds a command of this module and returns the program.
func BuildCommand(name string) (string, error) { return goBuild(name, ".", "./"+name) }

// goBuild builds a main package into .work/bin/name. folder, as seen from this
// module's root, is the module whose versions count. Several test packages run
// at once: one builds, the others wait.
func goBuild(name, folder, pkg string, flags ...string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	work, err := WorkDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(work, "bin", name)
	unlock, err := lock(filepath.Join(work, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", bin}, flags, []string{pkg})...)
	cmd.Dir = filepath.Join(root, folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// Kcat returns the path of kcat, installed first where it may be; see Debian.
func Kcat(ctx context.Context) (string, error) { return Debian(ctx, "kcat", "kcat") }

// Debian returns the path of a command. When it is missing, the machine is
// Debian's and the user is root, its packages are installed with apt-get first.
func Debian(ctx context.Context, command string, packages ...string) (string, error) {
	if path, err := exec.LookPath(command); err == nil {
		return path, nil
	}
	names := strings.Join(packages, " ")
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: %s: install it (Debian: apt-get install %s)", ErrMissingTool, command, names)
	}
	work, err := WorkDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(work, "apt.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if path, err := exec.LookPath(command); err == nil {
		return path, nil
	}
	install := append([]string{"install", "-y", "-q", "--no-install-recommends"}, packages...)
	for _, args := range [][]string{{"update", "-q"}, install} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: %s: apt-get %s: %v\n%s", ErrMissingTool, command, args[0], err, lastLines(out, 5))
		}
	}
	return exec.LookPath(command)
}

// MachineFacts describes this machine in a few words for a report: processor,
// cores, memory, kernel, and the file system that holds dir.
func MachineFacts(dir string) string {
	cpu, mem := "unknown processor", ""
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &kb); err == nil {
			mem = fmt.Sprintf(", %.0f GiB", float64(kb)/(1<<20))
		}
	}
	var uts unix.Utsname
	kernel := ""
	if unix.Uname(&uts) == nil {
		kernel = ", Linux " + unix.ByteSliceToString(uts.Release[:])
	}
	return fmt.Sprintf("%s, %d cores%s%s, %s", cpu, runtime.NumCPU(), mem, kernel, fileSystem(dir))
}

// LoadAverages returns the load averages of the last 1, 5 and 15 minutes. A
// measurement begun on a busy machine measures that machine's other work.
func LoadAverages() string {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(load))
	return strings.Join(f[:min(3, len(f))], " ")
}

func fileSystem(dir string) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown file system"
	}
	best, kind := "", "unknown file system"
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		prefix := strings.TrimSuffix(f[1], "/") + "/"
		if strings.HasPrefix(dir+"/", prefix) && len(prefix) >= len(best) {
			best, kind = prefix, f[2]
		}
	}
	return kind
}

// lock takes an advisory lock shared between processes; the returned function
// gives it back.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
