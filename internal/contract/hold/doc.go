// Package hold keeps a part of a group that commands of others make: an OCF resource
// agent, or a script. It is the program of that part (gemel part): the shadow starts it
// by the right of the group, as it starts the group's other programs, and whatever the
// commands leave behind is in the control group of this start. So what is left at the
// group's deadline is killed by the shadow or the guard with all the rest, and nothing
// of it is ever started without a right.
//
// It begins with start, looks at intervals whether the part is well, and ends with stop
// when it is told to end (SIGTERM). Its exit code says whether the stop was proved; what
// else there is to say of it is in a file, of which each version replaces the one before.
package hold
