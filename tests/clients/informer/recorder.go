package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// A recorder watches by hand: short watches, each from where the last one ended, and a new
// list only where the server says that the past is gone. From a list to the next, it has to
// see every write once and in order.
type recorder struct {
	client  dynamic.ResourceInterface
	journal *journal
	random  *rand.Rand

	mutex    sync.Mutex
	segments []*segment
	asleep   chan struct{}
}

// What was seen from one list to the next.
type segment struct {
	from, to uint64
	// The revisions seen, and of those the ones that began or ended a deletion.
	seen, deletions map[uint64]bool
	// Revision of what there is, by uid.
	objects map[string]uint64
}

func (r *recorder) sleep() (wake func()) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	asleep := make(chan struct{})
	r.asleep = asleep
	return func() {
		r.mutex.Lock()
		r.asleep = nil
		r.mutex.Unlock()
		close(asleep)
	}
}

func (r *recorder) whileAsleep(ctx context.Context) {
	r.mutex.Lock()
	asleep := r.asleep
	r.mutex.Unlock()
	if asleep != nil {
		select {
		case <-asleep:
		case <-ctx.Done():
		}
	}
}

func (r *recorder) run(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := r.client.List(ctx, metav1.ListOptions{})
		if err != nil {
			r.journal.count("lists that failed")
			time.Sleep(20 * time.Millisecond)
			continue
		}
		revision, err := strconv.ParseUint(list.GetResourceVersion(), 10, 64)
		if err != nil {
			r.journal.problem("a list has the revision %q", list.GetResourceVersion())
			return
		}
		current := &segment{from: revision, to: revision, seen: map[uint64]bool{}, deletions: map[uint64]bool{}, objects: map[string]uint64{}}
		for i := range list.Items {
			item := &list.Items[i]
			current.objects[string(item.GetUID())] = revisionOf(item)
			if revisionOf(item) > revision {
				r.journal.problem("%s in a list of revision %d is of %d", item.GetName(), revision, revisionOf(item))
			}
		}
		r.mutex.Lock()
		r.segments = append(r.segments, current)
		r.mutex.Unlock()
		for ctx.Err() == nil && r.watch(ctx, current) {
			r.whileAsleep(ctx)
		}
	}
}

// watch follows for a second or so; false says that the past is gone.
func (r *recorder) watch(ctx context.Context, current *segment) bool {
	seconds := int64(1 + r.random.Intn(2))
	watcher, err := r.client.Watch(ctx, metav1.ListOptions{
		ResourceVersion:     strconv.FormatUint(current.to, 10),
		TimeoutSeconds:      &seconds,
		AllowWatchBookmarks: true,
	})
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			r.journal.count("expired")
			return false
		}
		r.journal.count("watches that failed")
		time.Sleep(20 * time.Millisecond)
		return true
	}
	defer watcher.Stop()
	r.journal.count("watches")
	for event := range watcher.ResultChan() {
		if event.Type == watch.Error {
			err := apierrors.FromObject(event.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				r.journal.count("expired")
				return false
			}
			// The end of a connection in the middle of an event reaches us as one, too.
			r.journal.count("watches that failed")
			return true
		}
		r.mutex.Lock()
		err := current.add(event)
		r.mutex.Unlock()
		if err != nil {
			r.journal.problem("%v", err)
		}
	}
	return true
}

func (s *segment) add(event watch.Event) error {
	object := event.Object.(*unstructured.Unstructured)
	revision := revisionOf(object)
	if event.Type == watch.Bookmark {
		if revision < s.to {
			return fmt.Errorf("a bookmark of %d after an event of %d", revision, s.to)
		}
		s.to = revision
		return nil
	}
	if revision <= s.to {
		return fmt.Errorf("%s %s of %d after an event of %d", event.Type, object.GetName(), revision, s.to)
	}
	s.to = revision
	s.seen[revision] = true
	uid := string(object.GetUID())
	_, there := s.objects[uid]
	switch event.Type {
	case watch.Added:
		if there {
			return fmt.Errorf("%s was added twice", object.GetName())
		}
	case watch.Modified, watch.Deleted:
		if !there {
			return fmt.Errorf("%s %s was never added", event.Type, object.GetName())
		}
	}
	s.objects[uid] = revision
	if event.Type == watch.Deleted {
		delete(s.objects, uid)
	}
	if event.Type == watch.Deleted || object.GetDeletionTimestamp() != nil {
		s.deletions[revision] = true
	}
	return nil
}

// check compares what was seen with what was acknowledged.
func (r *recorder) check() {
	extra := 0
	for _, segment := range r.segments {
		for revision, name := range r.journal.written {
			if revision > segment.from && revision <= segment.to && !segment.seen[revision] {
				r.journal.problem("the write of %s at %d was acknowledged, and never seen", name, revision)
			}
		}
		for revision := range segment.seen {
			if _, known := r.journal.written[revision]; !known && !segment.deletions[revision] {
				extra++
			}
		}
	}
	if extra > r.journal.lost {
		r.journal.problem("%d writes were seen that no one made, while %d answers were lost", extra, r.journal.lost)
	}
}

// caughtUp says in what its objects differ from a list.
func (r *recorder) caughtUp(list *unstructured.UnstructuredList) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.segments) == 0 {
		return errors.New("it never got a list")
	}
	objects := r.segments[len(r.segments)-1].objects
	if len(objects) != len(list.Items) {
		return fmt.Errorf("it has %d objects, the list %d", len(objects), len(list.Items))
	}
	for i := range list.Items {
		item := &list.Items[i]
		if seen := objects[string(item.GetUID())]; seen != revisionOf(item) {
			return fmt.Errorf("it has %s at %d, the list at %d", item.GetName(), seen, revisionOf(item))
		}
	}
	return nil
}
