-- Reads a page of a mailbox from its oldest entry, or from behind one, and notes that a delivery of each begins. What lingers
-- is given in its place, and no delivery of it noted.
--
-- KEYS  1 the stream  2 its meta hash  3 and 4, which are not read: those of an enqueue, so that a Redis Cluster whose
--       keys move gives neither of the two before the other  5 what lingers (zset), read only if it is asked for
-- ARGV  1 from: '-' or '(' and a stream id  2 max entries  3 bytes above which the page ends
--       4 bytes above which an entry is not given  5 since how long at most what lingers was put in, ms; or 0
-- gives the server's time in ms, whether there is more, and for each entry:
--       stream id, with '-' before it if it lingers, mark with this delivery counted, or nil, data or nil

redis.call('HLEN', KEYS[2])
local time = redis.call('TIME')
local page = {time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000)), 1}
local from, left, bytes = ARGV[1], tonumber(ARGV[2]), 0
local bytes_max, entry_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local marks = {}

-- Some of what lingers, how many of these were given, and behind what there may be more; nil if there is none.
local lately, given, behind = {}, 0, nil
if ARGV[5] ~= '0' then
    behind = '[' .. since(tonumber(ARGV[5]))
    local after = ARGV[1] ~= '-' and padded(string.sub(ARGV[1], 2))
    if after and after >= string.sub(behind, 2) then
        -- '!' comes next to the space behind an id.
        behind = '(' .. after .. '!'
    end
end
local function next_lately()
    if given == #lately and behind then
        lately, given = redis.call('ZRANGEBYLEX', KEYS[5], behind, '+', 'LIMIT', 0, 8), 0
        behind = #lately == 8 and '(' .. string.sub(lately[8], 1, 41) .. '!' or nil
    end
    return lately[given + 1]
end
-- Gives what lingers before the entry of an id, or all, while there is room.
local function give_lately(id)
    local entry = id and padded(id)
    while left > 0 and bytes < bytes_max do
        local text = next_lately()
        local its_id = text and string.sub(text, 1, 41)
        if not text or entry and its_id > entry then
            return
        end
        given = given + 1
        local mark_ends = string.find(text, ' ', 43, true)
        -- What stands there does not linger; what another put there is nothing.
        if its_id ~= entry and mark_ends and plain(text) then
            local data = #text - mark_ends <= entry_bytes_max and string.sub(text, mark_ends + 1)
            page[#page + 1] = '-' .. plain(text)
            page[#page + 1] = mark_ends > 43 and string.sub(text, 43, mark_ends - 1)
            page[#page + 1] = data
            left = left - 1
            bytes = bytes + (data and #data or 0)
        end
    end
end
local lingers = behind ~= nil

local is_last = false
while left > 0 and bytes < bytes_max and not is_last do
    -- A few at a time: what is read beyond the page was read in vain.
    local want = math.min(left, 8)
    local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
    local ids, noted = {}, {}
    for nth, entry in ipairs(entries) do
        ids[nth] = entry[1]
    end
    if #ids > 0 then
        noted = redis.call('HMGET', KEYS[2], unpack(ids))
    end
    is_last = #entries < want
    for nth, entry in ipairs(entries) do
        local id, fields, data = entry[1], entry[2], false
        if lingers then
            give_lately(id)
        end
        if left == 0 or bytes >= bytes_max then
            is_last = false
            break
        end
        for at = 1, #fields, 2 do
            if fields[at] == 'data' and #fields[at + 1] <= entry_bytes_max then
                data = fields[at + 1]
                bytes = bytes + #data
            end
        end
        local mark = noted[nth]
        local head, begun = string.match(mark or '', '^(.*:)(%d+)$')
        if head then
            mark = head .. string.format('%.0f', tonumber(begun) + 1)
            marks[#marks + 1] = id
            marks[#marks + 1] = mark
        end
        page[#page + 1] = id
        page[#page + 1] = mark
        page[#page + 1] = data
        from = '(' .. id
        left = left - 1
    end
end
if lingers and is_last then
    give_lately(nil)
end
if (is_last or #redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1) == 0) and not (lingers and next_lately()) then
    page[2] = 0
end
if #marks > 0 then
    -- A server that takes no writes still gives mail; it does not remember that it did.
    redis.pcall('HSET', KEYS[2], unpack(marks))
end
return page
