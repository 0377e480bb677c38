package store

import (
	"context"
	"fmt"

	"gemel/internal/store/etcdpb"
)

// Of etcd's alarms.
const (
	noSpace  = 1
	takeAway = 2
)

// space is how much room the member that was asked has, in bytes.
type space struct {
	Used  int64 // that is in use; what was before some revisions among it
	Size  int64 // of its file
	Quota int64 // that the file may have. Beyond it no member takes a write until Tidy
	// Full says that the store takes no write: this member or another one has reached its
	// quota. Reads go on, and with them every authority that there is.
	Full bool
	mine bool // it is this member
}

// wasteful reports whether giving back what is not used is worth a pause of the member.
func (s space) wasteful() bool { return s.Size > s.Quota/2 && s.Used < s.Size/2 }

// Space tells how much room the member has that is asked, and whether the store takes
// writes.
func (c *Client) Space(ctx context.Context) (space, error) {
	s, err := repeat(ctx, &c.pool, func(ctx context.Context, e *end) (space, error) {
		l, err := c.fit(ctx, e)
		if err != nil {
			return space{}, err
		}
		st, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
		if err != nil {
			return space{}, plain(err)
		}
		a, err := ask[etcdpb.AlarmRequest, etcdpb.AlarmResponse](ctx, l, "Maintenance/Alarm", &etcdpb.AlarmRequest{})
		if err != nil {
			return space{}, plain(err)
		}
		out := space{Used: st.GetDbSizeInUse(), Size: st.GetDbSize(), Quota: st.GetDbSizeQuota()}
		if out.Quota == 0 {
			out.Quota = Quota
		}
		for _, x := range a.GetAlarms() {
			if x.GetAlarm() == noSpace {
				out.Full = true
				out.mine = out.mine || x.GetMemberId() == st.GetHeader().GetMemberId()
			}
		}
		return out, nil
	})
	if err != nil {
		return space{}, fmt.Errorf("asking how full the store is: %w", err)
	}
	return s, nil
}

// Tidy makes room in the member of this machine, and has the store take writes again when
// there is some. It reports what it did; empty: there was nothing to do. History that is
// kept for those who follow is forgotten for that; no key is. The member answers nobody while it gives
// room back, for some tenths of a second: not two of them at a time.
func (c *Client) Tidy(ctx context.Context) (done string, err error) {
	if c.c.Socket == "" {
		return "", nil // an etcd that somebody else runs is that one's to look after
	}
	s, err := c.Space(ctx)
	near := s.Size > s.Quota/5*4
	if err != nil || !s.Full && !s.wasteful() && !near {
		return "", err
	}
	// None of this is asked twice: who is asked again while it works would do it again.
	l, err := c.ends[0].connect(ctx)
	if err != nil {
		return "", fmt.Errorf("making room in the store: %w", err)
	}
	if s.Full || near {
		if err := compact(ctx, l); err != nil {
			return "", fmt.Errorf("forgetting the history of the store: %w", err)
		}
	}
	if !s.Full && !s.wasteful() {
		// Another member had the store take writes again before it was this one's turn: its
		// file is nearly as large as it may be still, if not all of that is in use.
		now, err := c.Space(ctx)
		if err != nil || !now.wasteful() {
			return "", err
		}
	}
	if _, err := ask[etcdpb.DefragmentRequest, etcdpb.DefragmentResponse](ctx, l, "Maintenance/Defragment", &etcdpb.DefragmentRequest{}); err != nil {
		return "", fmt.Errorf("giving back what the store does not use: %w", plain(err))
	}
	after, err := c.Space(ctx)
	if err != nil {
		return "", err
	}
	done = fmt.Sprintf("its file has %d KiB of %d, and had %d", after.Size>>10, after.Quota>>10, s.Size>>10)
	switch {
	case !after.mine:
		return done, nil
	case after.Size > after.Quota/5*4:
		return "", fmt.Errorf("the store is full, and forgetting its history made too little room: %d KiB are in use, of %d", after.Used>>10, after.Quota>>10)
	}
	if err := disarm(ctx, l); err != nil {
		return "", fmt.Errorf("having the store take writes again: %w", err)
	}
	return done + "; it takes writes again", nil
}

// compact forgets all but what stands now.
func compact(ctx context.Context, l *line) error {
	st, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
	if err != nil {
		return plain(err)
	}
	_, err = ask[etcdpb.CompactionRequest, etcdpb.CompactionResponse](ctx, l, "KV/Compact", &etcdpb.CompactionRequest{Revision: st.GetHeader().GetRevision(), Physical: true})
	if compacted.is(err) {
		return nil // another member was faster
	}
	return plain(err)
}

// disarm takes the alarm of the member away.
func disarm(ctx context.Context, l *line) error {
	st, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
	if err != nil {
		return plain(err)
	}
	_, err = ask[etcdpb.AlarmRequest, etcdpb.AlarmResponse](ctx, l, "Maintenance/Alarm", &etcdpb.AlarmRequest{
		Action: takeAway, MemberId: st.GetHeader().GetMemberId(), Alarm: noSpace})
	return plain(err)
}
