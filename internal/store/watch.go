package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store/etcdpb"
)

const (
	pulse    = 500 * time.Millisecond // how often the other end of a watch has to show that it lives
	watchGap = 50 * time.Millisecond
)

// Watch calls changed after something that is decided by did, with a revision at or
// after the change, until ctx ends. Changes that come while changed runs are told
// as one. It is a hint, for who would have to ask again and again otherwise: after
// each new connection, and when the store has forgotten the past, it says that
// something may have changed. Only a read tells what.
func (c *Client) Watch(ctx context.Context, changed func(ha.Rev)) {
	all := c.key("")
	watch(ctx, c, span{key: all, end: past(all), without: c.key(docsPrefix)}, changed)
}

// WatchDocs is Watch for the documents whose keys begin with prefix.
func (c *Client) WatchDocs(ctx context.Context, prefix string, changed func(ha.Rev)) {
	docs := c.key(docsPrefix + prefix)
	watch(ctx, c, span{key: docs, end: past(docs)}, changed)
}

// span is what is watched: the keys from key to before end, but for those that begin
// with without, if that is not empty.
type span struct{ key, end, without []byte }

func (s span) has(key []byte) bool {
	return len(s.without) == 0 || !bytes.HasPrefix(key, s.without)
}

func watch(ctx context.Context, c *Client, what span, changed func(ha.Rev)) {
	news := make(chan ha.Rev, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for at := 0; ctx.Err() == nil; at++ {
			e := c.ends[(int(c.first.Load())+at)%len(c.ends)]
			_ = c.follow(ctx, e, what, func(r ha.Rev) { tell(news, r) }) // why it ended is the next read's to say
			wait(ctx, watchGap)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			<-ended
			return
		case r := <-news:
			changed(r)
		}
	}
}

// tell leaves the highest revision for whoever is not quick enough. There is one
// sender.
func tell(news chan ha.Rev, r ha.Rev) {
	select {
	case old := <-news:
		r = max(r, old)
	default:
	}
	news <- r // there is room: nobody else sends
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// follow watches at one end until that fails.
func (c *pool) follow(ctx context.Context, e *end, what span, tell func(ha.Rev)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began, stop := context.WithTimeout(ctx, pulse)
	defer stop()
	l, err := c.fit(began, e)
	if err != nil {
		return err
	}
	s := client[etcdpb.WatchRequest, etcdpb.WatchResponse](l, "Watch/Watch").CallBidiStream(ctx)
	// A member without a leader cuts watches that ask for one.
	s.RequestHeader().Set("hasleader", "true")
	l.sign(s.RequestHeader())
	got := make(chan error, 1) // nil: something was received
	ended := make(chan struct{})
	defer func() {
		cancel()
		_ = s.CloseRequest() // whatever waits for more of it ends
		<-ended
		_ = s.CloseResponse()
	}()
	// What is sent may wait for the other end to read: not for ever.
	send := func(r *etcdpb.WatchRequest) error {
		late := time.AfterFunc(pulse, func() { cancel(); _ = s.CloseRequest() })
		defer late.Stop()
		return s.Send(r)
	}
	if err := send(&etcdpb.WatchRequest{CreateRequest: &etcdpb.WatchCreateRequest{Key: what.key, RangeEnd: what.end}}); err != nil {
		close(ended)
		return err
	}
	go func() {
		defer close(ended)
		for {
			r, err := s.Receive()
			if err == nil {
				err = c.heard(r, what, tell)
			} else {
				l.judge(err)
			}
			if err == nil {
				select {
				case got <- nil:
				default:
				}
				continue
			}
			select {
			case got <- err:
			case <-ctx.Done():
			}
			return
		}
	}()
	beat := time.NewTicker(pulse)
	defer beat.Stop()
	heard := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-got:
			if err != nil {
				return err
			}
			heard = true
		case <-beat.C:
			if !heard {
				return errors.New("the watch is silent")
			}
			heard = false
			if err := send(&etcdpb.WatchRequest{ProgressRequest: &etcdpb.WatchProgressRequest{}}); err != nil {
				return err
			}
		}
	}
}

// heard takes one message of a watch.
func (c *pool) heard(r *etcdpb.WatchResponse, what span, tell func(ha.Rev)) error {
	if err := c.saw(r.GetHeader().GetClusterId(), 0, 0); err != nil {
		return err
	}
	if r.GetCanceled() {
		return fmt.Errorf("the watch was ended: %s", r.GetCancelReason())
	}
	at := int64(0)
	if r.GetCreated() {
		at = r.GetHeader().GetRevision()
	}
	for _, ev := range r.GetEvents() {
		if what.has(ev.GetKv().GetKey()) {
			at = max(at, ev.GetKv().GetModRevision())
		}
	}
	if at != 0 {
		tell(rev(at))
	}
	return nil
}
