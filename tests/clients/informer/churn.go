package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// connections can be cut, all at once, as a load balancer does.
type connections struct {
	mutex sync.Mutex
	open  []net.Conn
}

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.mutex.Lock()
		c.open = append(c.open, connection)
		c.mutex.Unlock()
	}
	return connection, err
}

func (c *connections) cut() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, connection := range c.open {
		_ = connection.Close()
	}
	c.open = nil
}

// churn lives through an hour: people change widgets, a controller follows, recorders watch.
// In some minutes connections are cut, one recorder sleeps until the server has forgotten
// where it was, and, with --restarts, the one who started this restarts the server:
// "restart" is printed, and a line read when it is done.
func churn(ctx context.Context, config *rest.Config, arguments []string) error {
	flags := flag.NewFlagSet("churn", flag.ContinueOnError)
	seed := flags.Int64("seed", 1, "what happens")
	restarts := flags.Bool("restarts", false, "ask for restarts of the server")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	lines := &connections{}
	config.Dial = lines.dial
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	resource := client.Resource(widgets).Namespace(namespace)
	j := newJournal()
	watching, stop := context.WithCancel(ctx)
	defer stop()

	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(widgets).Informer()
	if err := ordered(informer, j); err != nil {
		return err
	}
	// A second one, of its own connection, that sees a part.
	part := dynamicinformer.NewFilteredDynamicInformer(client, widgets, namespace, 0, cache.Indexers{},
		func(options *metav1.ListOptions) { options.LabelSelector = "person=1" }).Informer()
	if err := ordered(part, j); err != nil {
		return err
	}
	control, err := newController(informer, resource, j)
	if err != nil {
		return err
	}
	factory.Start(watching.Done())
	go part.Run(watching.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced, part.HasSynced) {
		return errors.New("the informers never synced")
	}
	go control.run(watching)

	recorders := []*recorder{}
	var recording sync.WaitGroup
	for number := range 2 {
		r := &recorder{client: resource, journal: j, random: rand.New(rand.NewSource(*seed + int64(number)))}
		recorders = append(recorders, r)
		recording.Add(1)
		go func() {
			defer recording.Done()
			r.run(watching)
		}()
	}

	began := time.Now()
	input := bufio.NewScanner(os.Stdin)
	wake := func() {}
	live(ctx, *seed, j, resource, func(minute int) {
		switch {
		case minute%20 == 15 && *restarts:
			fmt.Println("restart")
			if !input.Scan() {
				j.problem("no one restarted the server")
			}
			j.count("restarts")
		case minute%10 == 5:
			lines.cut()
			j.count("cuts")
		case minute == 22:
			wake = recorders[1].sleep()
		case minute == 52:
			wake()
		}
	})

	// The controller comes to an end, and every cache to the same state.
	var final *unstructured.UnstructuredList
	quiet := func() error {
		list, err := resource.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if err := settled(&list.Items[i]); err != nil {
				return err
			}
		}
		final = list
		return errors.Join(same("the informer", informer, list, nil),
			same("the informer of a part", part, list, map[string]string{"person": "1"}))
	}
	if err := eventually(ctx, quiet); err != nil {
		j.problem("at the end: %v", err)
	}
	took := time.Since(began)
	if final != nil {
		j.counts["objects at the end"] = len(final.Items)
		end := func() error {
			for number, r := range recorders {
				if err := r.caughtUp(final); err != nil {
					return fmt.Errorf("recorder %d: %w", number, err)
				}
			}
			return nil
		}
		if err := eventually(ctx, end); err != nil {
			j.problem("at the end: %v", err)
		}
	}
	stop()
	recording.Wait()
	if final != nil {
		for _, r := range recorders {
			r.check()
		}
	}
	j.counts["milliseconds"] = int(took.Milliseconds())
	j.counts["answers lost"] = j.lost
	summary, err := json.Marshal(j.counts)
	if err != nil {
		return err
	}
	fmt.Println(string(summary))
	if len(j.problems) > 0 {
		return errors.New(strings.Join(j.problems, "\n"))
	}
	return nil
}

// ordered checks that a handler sees an object's revisions only grow, and nothing after its end.
func ordered(informer cache.SharedIndexInformer, j *journal) error {
	last := map[string]uint64{}
	uid := func(object *unstructured.Unstructured) string { return string(object.GetUID()) }
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			widget := object.(*unstructured.Unstructured)
			if _, there := last[uid(widget)]; there {
				j.problem("an informer added %s twice", widget.GetName())
			}
			last[uid(widget)] = revisionOf(widget)
			j.count("informed")
		},
		UpdateFunc: func(_, object any) {
			widget := object.(*unstructured.Unstructured)
			// The same again is what a new list brings.
			if before, there := last[uid(widget)]; there && revisionOf(widget) < before {
				j.problem("an informer has %s go from %d back to %d", widget.GetName(), before, revisionOf(widget))
			}
			last[uid(widget)] = revisionOf(widget)
			j.count("informed")
		},
		DeleteFunc: func(object any) {
			if gone, unknown := object.(cache.DeletedFinalStateUnknown); unknown {
				object = gone.Obj
			}
			delete(last, uid(object.(*unstructured.Unstructured)))
			j.count("informed")
		},
	})
	return err
}

// same says in what a cache differs from a list.
func same(name string, informer cache.SharedIndexInformer, list *unstructured.UnstructuredList, labels map[string]string) error {
	cached := map[string]*unstructured.Unstructured{}
	for _, object := range informer.GetStore().List() {
		widget := object.(*unstructured.Unstructured)
		cached[widget.GetName()] = widget
	}
	wanted := 0
	for i := range list.Items {
		item := &list.Items[i]
		selected := true
		for key, value := range labels {
			selected = selected && item.GetLabels()[key] == value
		}
		if !selected {
			continue
		}
		wanted++
		if !equality.Semantic.DeepEqual(cached[item.GetName()], item) {
			return fmt.Errorf("%s has %s otherwise than the server", name, item.GetName())
		}
	}
	if len(cached) != wanted {
		return fmt.Errorf("%s has %d objects, the server %d", name, len(cached), wanted)
	}
	return nil
}
