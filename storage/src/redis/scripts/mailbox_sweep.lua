-- Takes what has expired out of one mailbox, and says when to look again.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)
-- ARGV  1 scoped key  2 now, ms  3 TTL, ms  4 TTL of the meta hash, s
-- gives expired, depth

local before = redis.call('XLEN', KEYS[1])
local marks = redis.call('HGETALL', KEYS[2])
redis.call('ZSCORE', KEYS[3], ARGV[1])
redis.call('HLEN', KEYS[4])

local now, ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local oldest = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - ttl + 1

-- Entries without a mark are as old as their ids say, by the server's clock, which gave them.
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', math.max(oldest, 0)))

local known, due, marked, gone = 0, nil, 0, {}
for at = 1, #marks, 2 do
    local field, mark = marks[at], marks[at + 1]
    local ms = tonumber(string.match(field, '^(%d+)-%d+$'))
    if field == 'depth' then
        known = tonumber(mark) or 0
    elseif ms then
        -- Nanoseconds are more than a number holds: both sides are rounded the same way, so that what is over by now is seen to be.
        local expires = tonumber(string.match(mark, ':(%d+):%d+$')) or 0
        if expires <= now * 1000000 or ms < oldest then
            gone[#gone + 1] = field
        else
            marked = marked + 1
            due = math.min(due or expires / 1000000, expires / 1000000)
        end
    end
end
-- `unpack` has room for some thousands.
for at = 1, #gone, 1000 do
    local to = math.min(at + 999, #gone)
    redis.call('XDEL', KEYS[1], unpack(gone, at, to))
    redis.call('HDEL', KEYS[2], unpack(gone, at, to))
end
local left = redis.call('XLEN', KEYS[1])
if left > marked then
    local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
    local expires = tonumber(string.match(first, '^(%d+)')) + ttl
    due = math.min(due or expires, expires)
end

local expired = before - left + math.max(known - before, 0)
-- Never at once again, should the two clocks disagree.
settle(known, left, due or 0, math.max(due or 0, now + 1000), ARGV[4])
if expired > 0 then
    redis.call('HINCRBY', KEYS[4], 'expired', expired)
end
return {expired, left}
