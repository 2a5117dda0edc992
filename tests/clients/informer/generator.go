package main

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// The hour: a change a second, by people who each have objects of their own.
const (
	hour      = 3600
	people    = 4
	perPerson = 40
	namespace = "default"
)

// A person changes widgets, one after the other, as a seed says.
type person struct {
	number  int
	random  *rand.Rand
	client  dynamic.ResourceInterface
	journal *journal
	last    uint64
}

func (p *person) name() string {
	return fmt.Sprintf("w-%d-%02d", p.number, p.random.Intn(perPerson))
}

// acknowledged checks that revisions only grow for one who waits for every answer.
func (p *person) acknowledged(object *unstructured.Unstructured, changed bool) {
	revision := p.journal.acknowledge(object)
	if changed && revision <= p.last {
		p.journal.problem("%s was written at %d, after a write at %d", object.GetName(), revision, p.last)
	}
	p.last = max(p.last, revision)
}

// patiently repeats a request whose answer was lost; answers of the server are final.
func patiently(ctx context.Context, j *journal, ask func() error) error {
	for {
		err := ask()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if status := apierrors.APIStatus(nil); asStatus(err, &status) && status.Status().Code != 0 && status.Status().Code < 500 {
			return err
		}
		j.lose()
		time.Sleep(20 * time.Millisecond)
	}
}

func asStatus(err error, status *apierrors.APIStatus) bool {
	found, is := err.(apierrors.APIStatus)
	*status = found
	return is
}

func (p *person) create(ctx context.Context, name string, second int) error {
	widget := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group + "/" + version,
		"kind":       "Widget",
		"metadata":   map[string]any{"name": name, "labels": map[string]any{"person": fmt.Sprint(p.number)}},
		"spec":       map[string]any{"second": int64(second)},
	}}
	if p.random.Intn(2) == 0 {
		widget.SetFinalizers([]string{finalizer})
	}
	made, err := p.client.Create(ctx, widget, metav1.CreateOptions{})
	if err == nil {
		p.acknowledged(made, true)
	}
	return err
}

// update reads, changes and writes, and begins again if the controller came between.
func (p *person) update(ctx context.Context, name string, second int) error {
	for {
		widget, err := p.client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := unstructured.SetNestedField(widget.Object, int64(second), "spec", "second"); err != nil {
			return err
		}
		written, err := p.client.Update(ctx, widget, metav1.UpdateOptions{})
		if err == nil {
			p.acknowledged(written, false)
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
		p.journal.count("conflicts of people")
	}
}

func (p *person) patch(ctx context.Context, name string, second int) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/second":"%d"}}}`, second)
	written, err := p.client.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err == nil {
		p.acknowledged(written, false)
	}
	return err
}

func (p *person) delete(ctx context.Context, name string) error {
	return p.client.Delete(ctx, name, metav1.DeleteOptions{})
}

// act does one thing; that an object is there or not is no fault.
func (p *person) act(ctx context.Context, second int) error {
	name := p.name()
	what := p.random.Intn(100)
	err := patiently(ctx, p.journal, func() error {
		switch {
		case what < 30:
			return p.create(ctx, name, second)
		case what < 65:
			return p.update(ctx, name, second)
		case what < 80:
			return p.patch(ctx, name, second)
		default:
			return p.delete(ctx, name)
		}
	})
	p.journal.count("operations")
	if apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// live plays the hour. `minute` is called as each one begins, by one person while the others go on.
func live(ctx context.Context, seed int64, j *journal, client dynamic.ResourceInterface, minute func(int)) {
	var wait sync.WaitGroup
	for number := range people {
		p := &person{number: number, random: rand.New(rand.NewSource(seed + int64(number))), client: client, journal: j}
		wait.Add(1)
		go func() {
			defer wait.Done()
			for second := number; second < hour && ctx.Err() == nil; second += people {
				if second%60 == 0 {
					minute(second / 60)
				}
				if err := p.act(ctx, second); err != nil {
					j.problem("at second %d: %v", second, err)
				}
			}
		}()
	}
	wait.Wait()
}
