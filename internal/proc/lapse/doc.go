// Package lapse ends what outlives its right to run (DESIGN 5.3, points 5 and 6).
// The deadlines are in a page in the run directory. In a shadow a Keeper holds them,
// on a thread of its own, so that no order, no start and no hanging exec comes
// between an instant and the kill; when no shadow does, Guard does, in a process of
// its own.
package lapse
