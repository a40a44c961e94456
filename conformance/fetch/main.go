// Command fetch brings what the conformance suite runs onto this machine:
// Apache Kafka and its tools and Apache BookKeeper through Maven, kafka-python
// through pip and KafkaJS through npm into .work, and kcat from Debian.
// Nothing is downloaded twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/quirelog/quire/conformance/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := fetch(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

// fetch goes on after a failure, so that one run names everything missing.
func fetch(ctx context.Context) error {
	var failed []error
	for _, set := range peer.JarSets {
		classPath, err := set.Fetch(ctx)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Printf("%-12s %s\n", set.Name, classPath)
	}
	for _, client := range peer.ScriptClients {
		interpreter, folder, err := client.Fetch(ctx)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Printf("%-12s %s with %s\n", client.Name, folder, interpreter)
	}
	kcat, err := peer.Kcat(ctx)
	if err != nil {
		return errors.Join(append(failed, err)...)
	}
	fmt.Printf("%-12s %s\n", "kcat", kcat)
	return errors.Join(failed...)
}
