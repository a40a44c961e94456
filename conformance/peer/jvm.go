package peer

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// ScriptJVM are the JVM options with which Kafka's own scripts start a tool:
// what a measurement uses.
var ScriptJVM = append([]string{"-Xmx512M"}, jvmPerformance...)

// QuickJVM starts and ends faster, for tools that run for a second.
var QuickJVM = []string{"-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"}

// ToolCommand returns the command that runs the main class of a set. The child
// dies with this process.
func ToolCommand(ctx context.Context, set JarSet, jvm []string, class string, args ...string) (*exec.Cmd, error) {
	classPath, err := set.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	all := append(slices.Clone(jvm), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classPath, class)
	cmd := exec.CommandContext(ctx, "java", append(all, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// RunTool runs ToolCommand and returns its standard output; stdin may be "".
// Any exit status but 0 is an error that carries both outputs.
func RunTool(ctx context.Context, set JarSet, jvm []string, stdin, class string, args ...string) (string, error) {
	cmd, err := ToolCommand(ctx, set, jvm, class, args...)
	if err != nil {
		return "", err
	}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s\n%s", class, strings.Join(args, " "), err,
			lastLines(out.Bytes(), 20), lastLines(errOut.Bytes(), 20))
	}
	return out.String(), nil
}
