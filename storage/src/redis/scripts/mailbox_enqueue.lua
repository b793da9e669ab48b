-- Puts notifications into a mailbox, in their order, and the oldest out of it if it is full.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)  5 what lingers (zset)
--       6 the claim, if any
-- ARGV  1 scoped key  2 max entries  3 now, ms  4 TTL, s  5 TTL of the meta hash, s
--       6 when the first of them expires, ms
--       7 the number that is claimed, ':', and since how many ms the message may be there; or ''  8 how long a claim is kept, s
--       9 since how long at most what lingers was put in, ms  10… for each: stored JSON, mark
-- gives dropped, expired, the stream id of the entry that stood, or lingers, last before, or nil, and the stream id of each;
--       of a number that was claimed already nothing is stored

-- Every key is read before anything is written, so that one of a wrong type changes nothing.
local before = redis.call('XLEN', KEYS[1])
local meta = redis.call('HMGET', KEYS[2], 'depth', 'due', 'until')
redis.call('HLEN', KEYS[4])
local known, due, till = tonumber(meta[1] or 0) or 0, tonumber(meta[2] or nil), tonumber(meta[3] or nil)
local answer = {0, 0, false}
if before > 0 then
    answer[3] = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
end
local lately = redis.call('ZREVRANGE', KEYS[5], 0, 0)[1]
local last_gone = lately and plain(lately)
if last_gone then
    lately = string.sub(lately, 1, 41)
    if lately >= since(tonumber(ARGV[9])) and not (answer[3] and padded(answer[3]) > lately) then
        answer[3] = last_gone
    end
end
local claimed, claimed_at, age = nil, nil, nil
if ARGV[7] ~= '' then
    local time = redis.call('TIME')
    claimed_at = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    claimed, age = string.match(ARGV[7], '^(%d+):(%d+)$')
    claimed = tonumber(claimed)
    local last, at = string.match(redis.call('GET', KEYS[6]) or '', '^(%d+):(%d+)$')
    if last then
        -- The command may have waited here: the node's clock says when it was sent. What was claimed before the message can
        -- have been there was an equal one of before, whose number says nothing.
        local since = math.min(claimed_at, tonumber(ARGV[3])) - tonumber(age)
        if tonumber(last) >= claimed and tonumber(at) >= since then
            return answer
        end
        claimed = math.max(claimed, tonumber(last) + 1)
    end
end

local next_id, behind = '*', nil
if before == 0 and redis.call('EXISTS', KEYS[1]) == 0 then
    -- A stream begins anew, perhaps in the millisecond in which the one before it ended: within a millisecond its numbers
    -- begin with the microsecond, with room for a million entries each, so that ids never come again.
    local time = redis.call('TIME')
    local micros = tonumber(time[2])
    next_id = string.format('%s%03.0f-%.0f', time[1], math.floor(micros / 1000), micros % 1000 * 1048576)
    -- The clock stands, or went back: what lingers has an id that is not before this one.
    behind = last_gone and lately >= padded(next_id) and last_gone
end

local max, now, ttl, first = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]) * 1000, tonumber(ARGV[6])
local count = (#ARGV - 9) / 2
local dropped, expired = 0, 0
-- What is expired by now is not dropped.
local function leave(mark)
    local at = mark and tonumber(string.match(mark, ':(%d+):%d+$'))
    if at and at <= now * 1000000 then
        expired = expired + 1
    else
        dropped = dropped + 1
    end
end
local excess = math.max(math.min(before + count - max, before), 0)
local gone, from = {}, '-'
while #gone < excess do
    -- A few at a time: their texts come with them.
    local want = math.min(excess - #gone, 8)
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)) do
        gone[#gone + 1] = entry[1]
        from = '(' .. entry[1]
    end
end
if excess > 0 and due and due > now then
    -- Nothing in here has expired yet.
    dropped = excess
else
    -- `unpack` has room for some thousands.
    for at = 1, #gone, 1000 do
        local marks = redis.call('HMGET', KEYS[2], unpack(gone, at, math.min(at + 999, #gone)))
        for nth = 1, #marks do
            leave(marks[nth])
        end
    end
end

if before == 0 then
    due, till = nil, nil
end
local fields = {}
-- The TTLs start anew with each enqueue; in a busy mailbox they may be a tenth of a second behind. Another node's clock
-- counts only where it agrees as closely.
local renewed = not till or till - now > ttl or till - now <= ttl - 100
local sooner = not due or first < due
-- The first write: what a full server refuses, and where this key shows its type. Then nothing has happened.
if renewed or sooner then
    redis.call('ZADD', KEYS[3], 'LT', ARGV[6], ARGV[1])
end
if before == 0 and known > 0 then
    -- Marks of entries that are gone.
    redis.call('DEL', KEYS[2])
end
local depth = math.min(before + count, max)
if depth ~= known or before == 0 then
    fields[1], fields[2] = 'depth', depth
end
if sooner then
    fields[#fields + 1] = 'due'
    fields[#fields + 1] = ARGV[6]
end
if renewed then
    fields[#fields + 1] = 'until'
    fields[#fields + 1] = string.format('%.0f', now + ttl)
end
if behind then
    -- A stream that held this id goes on behind it.
    redis.call('XADD', KEYS[1], behind, 'data', '')
    redis.call('XDEL', KEYS[1], behind)
    next_id = '*'
end
for at = 1, count do
    local id
    if count == 1 and excess > 0 then
        id = redis.call('XADD', KEYS[1], 'MAXLEN', max, next_id, 'data', ARGV[10])
    else
        id = redis.call('XADD', KEYS[1], next_id, 'data', ARGV[8 + 2 * at])
    end
    next_id = '*'
    answer[3 + at] = id
    if at <= count - max then
        -- More at once than the mailbox holds.
        leave(ARGV[9 + 2 * at])
    else
        fields[#fields + 1] = id
        fields[#fields + 1] = ARGV[9 + 2 * at]
    end
end
if count > 1 and before + count > max then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', max)
end
for at = 1, #fields, 1000 do
    redis.call('HSET', KEYS[2], unpack(fields, at, math.min(at + 999, #fields)))
end
for at = 1, #gone, 1000 do
    redis.call('HDEL', KEYS[2], unpack(gone, at, math.min(at + 999, #gone)))
end
if renewed then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if ARGV[7] ~= '' then
    redis.call('SET', KEYS[6], string.format('%.0f:%.0f', claimed, claimed_at), 'EX', ARGV[8])
end

-- Entries that went with their stream, or by another hand: the TTL took them.
expired = expired + math.max(known - before, 0)
redis.call('HINCRBY', KEYS[4], 'enqueued', count)
if depth ~= known then
    redis.call('HINCRBY', KEYS[4], 'depth', depth - known)
end
if dropped > 0 then
    redis.call('HINCRBY', KEYS[4], 'dropped', dropped)
end
if expired > 0 then
    redis.call('HINCRBY', KEYS[4], 'expired', expired)
end
answer[1], answer[2] = dropped, expired
return answer
