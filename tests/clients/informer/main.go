// Command informer is what Go authors write against a Kubernetes API, each part of it a
// subcommand that checks itself and exits with 1, saying what was wrong:
//
//	informer churn        an hour of simulated changes under a controller, as fast as it goes
//	informer typed        the typed clientset in JSON, protobuf and CBOR
//	informer elect        two candidates for one Lease
//	informer manager      a controller-runtime manager with its own cache and finalizers
//
// The server is the one that KUBECONFIG names.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// The custom kind that the programs work with; the test makes its definition.
const (
	group   = "informer.example.com"
	version = "v1"
)

var widgets = schema.GroupVersionResource{Group: group, Version: version, Resource: "widgets"}

const (
	// No subcommand takes longer.
	longest = 7 * time.Minute
	// How long the server, or a client, may take until something holds: a reflector that met a
	// server which restarts waits up to a minute before it asks again.
	patience = 2 * time.Minute
)

func main() {
	// Reflectors tell of every interruption; the interruptions are on purpose.
	flags := flag.NewFlagSet("klog", flag.ExitOnError)
	klog.InitFlags(flags)
	_ = flags.Set("logtostderr", "false")
	_ = flags.Set("stderrthreshold", "FATAL")
	klog.SetOutput(discard{})

	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

type discard struct{}

func (discard) Write(text []byte) (int, error) { return len(text), nil }

func run() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("usage: informer churn|typed|elect|manager")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	// The limits of a client are its own affair; here the server is tested.
	config.QPS = -1
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	command, arguments := os.Args[1], os.Args[2:]
	commands := map[string]func(context.Context, *rest.Config, []string) error{
		"churn":   churn,
		"typed":   typed,
		"elect":   elect,
		"manager": runManager,
	}
	do, found := commands[command]
	if !found {
		return fmt.Errorf("there is no subcommand %q", command)
	}
	return do(ctx, config, arguments)
}

// eventually asks again until there is no error, and returns the last one.
func eventually(ctx context.Context, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
