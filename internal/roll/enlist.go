package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
)

// answer answers one question of a machine of the cluster.
func (d *porch) answer(w http.ResponseWriter, r *http.Request, f func(context.Context, mtls.Identity, []byte) (reply, error)) {
	status, out := http.StatusOK, reply{}
	err := func() error {
		if r.Method != http.MethodPost || r.TLS == nil {
			return &Refused{errors.New("POST by TLS is needed here"), ""}
		}
		who, err := d.clerk.files.Peer(*r.TLS, mtls.Node, mtls.Witness)
		if err != nil {
			return &Refused{fmt.Errorf("only machines of the cluster may ask that: %w", err), ""}
		}
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsk))
		if err != nil {
			return &Refused{fmt.Errorf("the question cannot be read: %w", err), ""}
		}
		ctx, cancel := context.WithTimeout(r.Context(), enlistTime)
		defer cancel()
		out, err = f(ctx, who, b)
		return err
	}()
	var no *Refused
	switch {
	case errors.As(err, &no):
		status, out = http.StatusForbidden, reply{Refused: err.Error()}
	case err != nil:
		status, out = http.StatusInternalServerError, reply{Refused: err.Error()}
	}
	if err != nil {
		d.clerk.Log.Warn("a machine was not answered", "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
	}
	b, err := json.Marshal(out)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"refused":"this node could not write its answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who has gone asks again
}

func (d *porch) clock(context.Context, mtls.Identity, []byte) (reply, error) {
	t := timesNow()
	return reply{Times: &t}, nil
}

// roll tells who is in the cluster.
func (d *porch) roll(ctx context.Context, _ mtls.Identity, _ []byte) (reply, error) {
	r, _, err := d.clerk.books.read(ctx)
	return reply{Roll: &r}, err
}

// leave takes out the machine that asks.
func (d *porch) leave(ctx context.Context, who mtls.Identity, b []byte) (reply, error) {
	var q leaving
	if err := json.Unmarshal(b, &q); err != nil {
		return reply{}, &Refused{fmt.Errorf("the question cannot be read: %w", err), ""}
	}
	if q.Name != who.Name.Name {
		return reply{}, &Refused{fmt.Errorf("%s asks that %s leaves; each machine leaves by itself", who.Name.Name, q.Name), ""}
	}
	r, _, err := d.clerk.books.read(ctx)
	if err != nil {
		return reply{}, err
	}
	if _, in := r.Node(ha.Node(q.Name)); in { // else it asks again
		if r, err = d.clerk.books.remove(ctx, q.Name, q.Witness); err != nil {
			return reply{}, &Refused{err, ""}
		}
	}
	// It must not stop before it is no member any more: of those that are left, too many
	// would be dead.
	for {
		busy, err := d.clerk.members(ctx, r)
		if err == nil && !busy && member(d.clerk.seen(), q.Name) < 0 {
			return reply{Roll: &r}, nil
		}
		if pause(ctx, removeEvery); ctx.Err() != nil {
			return reply{}, fmt.Errorf("%s is out of the list, and still a member of the store: %w", q.Name, errors.Join(err, ctx.Err()))
		}
	}
}

// freeTime is how long a second node waits for what runs on the first by no right.
const freeTime = 20 * time.Second

// vacate waits until a second node may come in. Once nothing runs by no right nothing ever
// will: in a cluster a start needs one.
func vacate(ctx context.Context, c *Clerk, r Roll) error {
	if nodes, _ := r.count(); c.Free == nil || nodes != 1 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freeTime)
	defer cancel()
	for {
		err := c.Free(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, removeEvery); ctx.Err() != nil {
			return fmt.Errorf("a second node could be given what runs here by no right, and both would run it: %w. Try again in a moment", err)
		}
	}
}

// enlist puts a newcomer into the roll, when it is seen to be where it says.
func (d *porch) enlist(ctx context.Context, who mtls.Identity, b []byte) (reply, error) {
	var f facts
	if err := json.Unmarshal(b, &f); err != nil {
		return reply{}, &Refused{fmt.Errorf("what it says of itself cannot be read: %w", err), ""}
	}
	n := Node{Name: ha.Node(who.Name.Name), Witness: who.Name.Role == mtls.Witness, Addresses: f.Addresses, Store: f.Store, Joined: time.Now().UTC().Truncate(time.Second)}
	now, _, err := d.clerk.books.read(ctx)
	if err != nil {
		return reply{}, err
	}
	if err := now.fits(n, f.One); err != nil {
		return reply{}, &Refused{err, ""}
	}
	if _, err := now.with(n); err != nil {
		return reply{}, &Refused{err, ""}
	}
	if err := d.visit(ctx, who.Name, n, f.Waits); err != nil {
		return reply{}, &Refused{err, ""}
	}
	if err := vacate(ctx, d.clerk, now); err != nil {
		return reply{}, &Refused{err, ""}
	}
	if err := d.oust(ctx, now, n.Name); err != nil {
		return reply{}, err
	}
	r, err := d.clerk.books.change(ctx, func(r Roll) (Roll, error) { return r.with(n) })
	if err != nil {
		return reply{}, &Refused{err, ""}
	}
	if err := d.clerk.books.unclaim(ctx, who.Name.Name); err != nil { // it ends by itself, in an hour
		d.clerk.Log.Warn("the name of a machine that has joined is still claimed", "name", n.Name, "error", err)
	}
	_, err = d.clerk.members(ctx, r)
	if err != nil { // it is in, and what is missing is done by whoever looks next
		d.clerk.Log.Warn("the members of the store are not all there yet", "error", err)
	}
	return reply{Roll: &r}, nil
}

// oust removes a member of the store whose name a newcomer has: it is another machine's,
// whose data is not here.
func (d *porch) oust(ctx context.Context, r Roll, name ha.Node) error {
	if r.Store != nil {
		return nil
	}
	have, err := d.clerk.Store.Voters(ctx)
	if err != nil {
		return err
	}
	if i := member(have, string(name)); i >= 0 && have[i].Started {
		return d.clerk.Store.Remove(ctx, have[i].ID)
	}
	return nil
}
