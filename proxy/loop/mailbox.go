package loop

import "sync/atomic"

// Task is work that any goroutine may give to a loop again and again without
// an allocation. A Task must not be copied.
type Task struct {
	Run func() // on the loop; set before the first Post

	next  *Task
	state atomic.Uint32
}

// The states of a Task. One that is posted while it runs runs again, since
// what it looked at may have changed behind its back.
const (
	taskIdle uint32 = iota
	taskQueued
	taskRunning
	taskAgain
)

// mailbox is a queue of tasks with many producers and the loop as consumer.
//
// The producers push onto a list that the consumer takes whole. asleep closes
// the gap between "the list is empty" and sleeping: the consumer sets it and
// looks once more; a producer pushes and then looks at it. One of both sees
// the other, and of many producers one clears it and wakes the consumer.
type mailbox struct {
	head   atomic.Pointer[Task]
	asleep atomic.Bool
}

// ended is the head of a mailbox that takes no more tasks.
var ended = new(Task)

func (m *mailbox) push(t *Task) (ok, wake bool) {
	for {
		switch s := t.state.Load(); s {
		case taskQueued, taskAgain:
			return true, false
		case taskRunning:
			if t.state.CompareAndSwap(taskRunning, taskAgain) {
				return true, false
			}
		case taskIdle:
			if t.state.CompareAndSwap(taskIdle, taskQueued) {
				return m.link(t)
			}
		}
	}
}

func (m *mailbox) link(t *Task) (ok, wake bool) {
	for {
		head := m.head.Load()
		if head == ended {
			t.state.Store(taskIdle)
			return false, false
		}
		t.next = head
		if m.head.CompareAndSwap(head, t) {
			break
		}
	}
	return true, m.asleep.Load() && m.asleep.CompareAndSwap(true, false)
}

func (m *mailbox) empty() bool {
	head := m.head.Load()
	return head == nil || head == ended
}

// sleep says whether the consumer may sleep. From then on a push wakes it.
func (m *mailbox) sleep() bool {
	m.asleep.Store(true)
	if m.empty() {
		return true
	}
	m.asleep.Store(false)
	return false
}

// run runs what has been posted, in order of posting. What is posted
// meanwhile waits for the next call, except a running task's own repetition.
func (m *mailbox) run() {
	if m.empty() {
		return
	}
	m.runList(m.head.Swap(nil))
}

// end runs what has been posted and lets nothing more in.
func (m *mailbox) end() { m.runList(m.head.Swap(ended)) }

func (m *mailbox) runList(list *Task) {
	if list == ended {
		return
	}
	var first *Task
	for list != nil {
		next := list.next
		list.next = first
		first, list = list, next
	}
	for t := first; t != nil; t = first {
		first = t.next
		t.next = nil
		for {
			t.state.Store(taskRunning)
			t.Run()
			if t.state.CompareAndSwap(taskRunning, taskIdle) {
				break
			}
		}
	}
}
