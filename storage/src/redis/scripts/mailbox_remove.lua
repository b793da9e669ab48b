-- Takes entries out of a mailbox by their ids; those that are gone already do no harm.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)  5 what lingers (zset)
-- ARGV  1 scoped key  2 under which figure to count them  3 TTL of the meta hash, s
--       4 since how long at most what lingers was put in, ms; or '' if nothing lingers  5 how many linger at most
--       6… stream ids
-- gives removed, depth

local before = redis.call('XLEN', KEYS[1])
local known = tonumber(redis.call('HGET', KEYS[2], 'depth') or 0) or 0
redis.call('ZSCORE', KEYS[3], ARGV[1])
redis.call('HLEN', KEYS[4])

local oldest, step, held = nil, #ARGV, 0
if ARGV[4] ~= '' then
    held = redis.call('ZCARD', KEYS[5])
    -- A few at a time: their texts are held here.
    oldest, step = since(tonumber(ARGV[4])), 8
end
-- Scores and texts of what lingers of the ids `from` to `to`.
local function lately(from, to)
    local ids, texts, members = {}, {}, {}
    for at = from, to do
        local id = ARGV[at]
        local text = padded(id)
        -- Milliseconds of more than 15 digits are another writer's and no time.
        if text >= oldest and string.sub(text, 1, 5) == '00000' then
            local entry, data = redis.call('XRANGE', KEYS[1], id, id)[1], nil
            for nth = 1, entry and #entry[2] or 0, 2 do
                if entry[2][nth] == 'data' then
                    data = entry[2][nth + 1]
                end
            end
            if data then
                ids[#ids + 1] = id
                texts[#texts + 1] = {text, data}
            end
        end
    end
    if #ids > 0 then
        local marks = redis.call('HMGET', KEYS[2], unpack(ids))
        for nth, text in ipairs(texts) do
            members[2 * nth - 1] = 0
            members[2 * nth] = text[1] .. ' ' .. (string.match(marks[nth] or '', '^[%d:]+$') or '') .. ' ' .. text[2]
        end
    end
    return members
end

local removed, lingers = 0, 0
for from = 6, #ARGV, step do
    local to = math.min(from + step - 1, #ARGV)
    local members = oldest and lately(from, to) or {}
    -- The first write: a full server takes it, and then the rest.
    removed = removed + redis.call('XDEL', KEYS[1], unpack(ARGV, from, to))
    if #members > 0 then
        redis.call('ZADD', KEYS[5], unpack(members))
        lingers = lingers + #members / 2
    end
end
if lingers > 0 then
    if held > 0 then
        redis.call('ZREMRANGEBYLEX', KEYS[5], '-', '(' .. oldest)
    end
    local excess = held + lingers > tonumber(ARGV[5]) and redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[5]) or 0
    if excess > 0 then
        redis.call('ZREMRANGEBYRANK', KEYS[5], 0, excess - 1)
    end
    redis.call('PEXPIRE', KEYS[5], ARGV[4])
end
local depth = before - removed
if depth > 0 then
    redis.call('HDEL', KEYS[2], unpack(ARGV, 6))
end
settle(known, depth, nil, nil, ARGV[3])
if removed > 0 then
    redis.call('HINCRBY', KEYS[4], ARGV[2], removed)
end
if known > before then
    redis.call('HINCRBY', KEYS[4], 'expired', known - before)
end
return {removed, depth}
