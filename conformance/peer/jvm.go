package peer

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// toolHeap is the heap that Kafka's start scripts give its tools.
const toolHeap = "-Xmx512M"

// RunTool runs the main class of a set with the heap and JVM options of
// Kafka's own start scripts and returns its standard output. stdin may be "".
// Any exit status but 0 is an error that carries both outputs.
func RunTool(ctx context.Context, set JarSet, stdin, class string, args ...string) (string, error) {
	classPath, err := set.Fetch(ctx)
	if err != nil {
		return "", err
	}
	jvm := append([]string{toolHeap}, jvmPerformance...)
	jvm = append(jvm, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classPath, class)
	cmd := exec.CommandContext(ctx, "java", append(jvm, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s\n%s", class, strings.Join(args, " "), err,
			lastLines(out.Bytes(), 20), lastLines(errOut.Bytes(), 20))
	}
	return out.String(), nil
}
