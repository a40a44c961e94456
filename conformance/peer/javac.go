package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// Javac compiles one source file against a class path into the cache, and
// returns the folder of the classes.
func Javac(ctx context.Context, name, classPath, source string) (dir string, err error) {
	javac, err := exec.LookPath("javac")
	if err != nil {
		return "", fmt.Errorf("%w: javac: install a JDK %d or later (Debian: apt-get install default-jdk-headless)", ErrMissingTool, javaMajorMin)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	return Cached("java", name, append(text, classPath...), func(dir string) error {
		cmd := exec.CommandContext(ctx, javac, "--release", fmt.Sprint(javaMajorMin), "-nowarn", "-Xlint:none", "-proc:none", "-cp", classPath, "-d", dir, source)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("javac %s: %w\n%s", source, err, lastLines(out, 20))
		}
		return nil
	})
}
