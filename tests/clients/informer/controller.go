package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const finalizer = "example.com/hold"

// A controller as client-go's examples have it: a shared informer tells keys to a
// rate-limited queue, workers bring the status to what the spec says.
type controller struct {
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string]
	client   dynamic.ResourceInterface
	journal  *journal
}

func newController(informer cache.SharedIndexInformer, client dynamic.ResourceInterface, j *journal) (*controller, error) {
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](2*time.Millisecond, time.Second))
	c := &controller{informer: informer, queue: queue, client: client, journal: j}
	add := func(object any) {
		key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
		if err != nil {
			j.problem("%v", err)
			return
		}
		queue.Add(key)
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    add,
		UpdateFunc: func(_, after any) { add(after) },
		DeleteFunc: add,
	})
	return c, err
}

func (c *controller) run(ctx context.Context) {
	defer c.queue.ShutDown()
	for range 2 {
		go func() {
			for c.next(ctx) {
			}
		}()
	}
	<-ctx.Done()
}

func (c *controller) next(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	err := c.reconcile(ctx, key)
	switch {
	case err == nil:
		c.queue.Forget(key)
	default:
		// The cache was behind, or the server away: once more, later each time.
		if apierrors.IsConflict(err) {
			c.journal.count("conflicts of the controller")
		} else if status := apierrors.APIStatus(nil); !asStatus(err, &status) {
			c.journal.lose()
		} else if !apierrors.IsNotFound(err) {
			c.journal.problem("the controller got for %s: %v", key, err)
		}
		c.queue.AddRateLimited(key)
	}
	return true
}

func (c *controller) reconcile(ctx context.Context, key string) error {
	cached, there, err := c.informer.GetStore().GetByKey(key)
	if err != nil || !there {
		return err
	}
	widget := cached.(*unstructured.Unstructured).DeepCopy()
	if widget.GetDeletionTimestamp() != nil {
		if !slices.Contains(widget.GetFinalizers(), finalizer) {
			return nil
		}
		widget.SetFinalizers(nil)
		_, err := c.client.Update(ctx, widget, metav1.UpdateOptions{})
		c.journal.count("finalized")
		return err
	}
	if settled(widget) == nil {
		return nil
	}
	second, _, _ := unstructured.NestedInt64(widget.Object, "spec", "second")
	status := map[string]any{"observedGeneration": widget.GetGeneration(), "second": second}
	if err := unstructured.SetNestedMap(widget.Object, status, "status"); err != nil {
		return err
	}
	written, err := c.client.UpdateStatus(ctx, widget, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	c.journal.count("reconciled")
	c.journal.acknowledge(written)
	return nil
}

// settled says what is not yet as the spec wants it.
func settled(widget *unstructured.Unstructured) error {
	if widget.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s is still being deleted", widget.GetName())
	}
	observed, _, _ := unstructured.NestedInt64(widget.Object, "status", "observedGeneration")
	wanted, _, _ := unstructured.NestedInt64(widget.Object, "spec", "second")
	second, found, _ := unstructured.NestedInt64(widget.Object, "status", "second")
	if !found || observed != widget.GetGeneration() || second != wanted {
		return fmt.Errorf("%s is of generation %d, and the controller saw %d", widget.GetName(), widget.GetGeneration(), observed)
	}
	return nil
}
